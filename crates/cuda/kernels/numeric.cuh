// Element types, vectors of them, and the moments that blocks merge.
#pragma once

#include "device.cuh"

namespace spikenorm {

struct Half {
    unsigned short bits;
};
struct BFloat16 {
    unsigned short bits;
};

// P: the type a value is computed in, and that parameters and statistics have.
template <typename T>
struct Element;

template <>
struct Element<float> {
    using P = float;
    static SPIKENORM_DEVICE float load(float value) { return value; }
    static SPIKENORM_DEVICE float store(float value) { return value; }
};

template <>
struct Element<double> {
    using P = double;
    static SPIKENORM_DEVICE double load(double value) { return value; }
    static SPIKENORM_DEVICE double store(double value) { return value; }
};

template <>
struct Element<Half> {
    using P = float;
    static SPIKENORM_DEVICE float load(Half value) { return half_to_float(value.bits); }
    static SPIKENORM_DEVICE Half store(float value) { return Half{float_to_half(value)}; }
};

template <>
struct Element<BFloat16> {
    using P = float;
    static SPIKENORM_DEVICE float load(BFloat16 value) {
        return bits_to_float(static_cast<unsigned>(value.bits) << 16);
    }
    // Round to nearest even in integers: the conversion instruction is missing below sm_80.
    static SPIKENORM_DEVICE BFloat16 store(float value) {
        const unsigned bits = float_to_bits(value);
        const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
        const unsigned rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
        return BFloat16{static_cast<unsigned short>(nan ? (bits >> 16) | 0x40u : rounded >> 16)};
    }
};

// V neighbouring values, moved as one.
template <typename T, int V>
struct alignas(sizeof(T) * V) Pack {
    T value[V];
};

// A value as an unevaluated sum of two: |low| is at most half a unit in the last place of high.
template <typename P>
struct Split {
    P high;
    P low;
};

// pivot + shift, split. For float the sum is exact enough in double; for double it is split exactly.
template <typename P>
SPIKENORM_DEVICE Split<P> split_sum(P pivot, double shift) {
    if constexpr (sizeof(P) == sizeof(double)) {
        const double sum = pivot + shift;
        const double back = sum - pivot;
        const double low = (pivot - (sum - back)) + (shift - back);
        // Beyond the range of the format the sum alone says what happened.
        return {sum, low == low ? low : 0.0};
    } else {
        const double sum = static_cast<double>(pivot) + shift;
        const P high = static_cast<P>(sum);
        const P low = static_cast<P>(sum - static_cast<double>(high));
        return {high, low == low ? low : P(0)};
    }
}

// value - mean, without losing the low part to a large mean.
template <typename P>
SPIKENORM_DEVICE P deviation(P value, Split<P> mean) {
    return (value - mean.high) - mean.low;
}

// A sum beside what rounding took from it (Knuth's exact addition): terms that cancel leave what they should.
template <typename P>
struct Compensated {
    P sum;
    P lost;

    // `rest`: what `term` itself was rounded by.
    SPIKENORM_DEVICE void add(P term, P rest = P(0)) {
        const P next = sum + term;
        const P back = next - sum;
        const P error = (sum - (next - back)) + (term - back);
        // Nothing is lost of an infinity.
        lost = next - next == P(0) ? lost + (error + rest) : P(0);
        sum = next;
    }
    SPIKENORM_DEVICE double total() const { return static_cast<double>(sum) + static_cast<double>(lost); }
};

// A difference as rounded, and what it was rounded by.
template <typename P>
struct Exact {
    P value;
    P rest;
};

template <typename P>
SPIKENORM_DEVICE Exact<P> exact_difference(P a, P b) {
    const P value = a - b;
    const P back = value - a;
    return {value, (a - (value - back)) - (b + back)};
}

// Two sums of a cell. In forward `a` is the mean (relative to the channel's pivot) and `b` the sum of
// squared deviations from it; in backward they are sum(dy) and sum(dy*xhat).
struct Pair {
    double a;
    double b;
};

// Count and moments of a set of values; merged by Chan's formula.
struct Moments {
    double count;
    double mean;
    double m2;

    SPIKENORM_DEVICE void merge(const Moments& other) {
        if (other.count == 0.0) return;
        if (count == 0.0) {
            *this = other;
            return;
        }
        const double total = count + other.count;
        const double delta = other.mean - mean;
        mean += delta * (other.count / total);
        m2 += other.m2 + delta * delta * (count * other.count / total);
        count = total;
    }
};

SPIKENORM_DEVICE unsigned smaller(unsigned a, unsigned b) { return a < b ? a : b; }

}  // namespace spikenorm

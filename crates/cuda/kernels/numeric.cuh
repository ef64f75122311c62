// Element types, vectors of them, and the moments that blocks merge.
#pragma once

#include "device.cuh"

namespace spikenorm {

SPIKENORM_DEVICE unsigned smaller(unsigned a, unsigned b) { return a < b ? a : b; }

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
    static SPIKENORM_DEVICE void store_two(Half* at, float first, float second) {
        *reinterpret_cast<unsigned*>(at) = floats_to_halves(first, second);
    }
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
    static SPIKENORM_DEVICE void store_two(BFloat16* at, float first, float second) {
        if constexpr (kConvertsBFloat16) {
            *reinterpret_cast<unsigned*>(at) = floats_to_bfloats(first, second);
        } else {
            at[0] = store(first);
            at[1] = store(second);
        }
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

// 1 / sqrt(value), 0 of 0: without eps a constant channel has that (core's inverse_std). For float a rough one and a step of Newton's method, in double, which leaves far less than float
// rounds off; the exact one takes ten times as long, and everything waits for it.
template <typename P>
SPIKENORM_DEVICE P inverse_root(double value) {
    if constexpr (sizeof(P) == sizeof(float)) {
        if (value > 1e-30 && value < 1e30) {
            const double rough = rough_inverse_root(static_cast<float>(value));
            return static_cast<P>(rough * (1.5 - 0.5 * value * rough * rough));
        }
    }
    return value == 0.0 ? P(0) : static_cast<P>(1.0 / square_root(value));
}

// A sum without rounding errors worth the name, four instructions a term. It starts at a number so large that no term
// is larger than the sum so far: then what an addition rounds off is term - (next - sum), exactly (Dekker). That
// number is the largest term so far, with room to grow, times `bound`: a power of two, at least four times the terms
// there will be, so that the product is exact and the sum stays close to it.
template <typename P>
struct Accumulator {
    P sum, lost, limit;

    static SPIKENORM_DEVICE Accumulator empty() { return {P(0), P(0), P(0)}; }
    // Beyond the range of the format the sum starts at zero, and is that of plain additions.
    static SPIKENORM_DEVICE P start(P limit, P bound) {
        const P at = limit * bound;
        return at - at == P(0) ? at : P(0);
    }
    // Says that no term to come is larger. Where that is news, the sum starts anew.
    SPIKENORM_DEVICE void expect(P largest, P bound) {
        if (!(largest > limit)) return;
        const P found = sum - start(limit, bound);
        limit = P(4) * largest;
        const P from = start(limit, bound);
        sum = from + found;
        lost += found - (sum - from);
    }
    SPIKENORM_DEVICE void add(P term) {
        const P next = sum + term;
        lost += term - (next - sum);
        sum = next;
    }
    SPIKENORM_DEVICE void add_product(P a, P b) {
        const P next = fused(a, b, sum);
        lost += fused(a, b, sum - next);
        sum = next;
    }
    SPIKENORM_DEVICE double total(P bound) const {
        const P found = sum - start(limit, bound);
        // Nothing is lost of an infinity.
        return static_cast<double>(found) + (lost - lost == P(0) ? static_cast<double>(lost) : 0.0);
    }
};

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
};

SPIKENORM_DEVICE Moments merged(const Moments& a, const Moments& b) {
    if (b.count == 0.0) return a;
    if (a.count == 0.0) return b;
    const double total = a.count + b.count;
    const double share = b.count / total;
    const double delta = b.mean - a.mean;
    return {total, a.mean + delta * share, a.m2 + b.m2 + delta * delta * (a.count * share)};
}

}  // namespace spikenorm

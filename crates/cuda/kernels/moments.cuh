// Moments of a set of values in two passes: the mean, roughly, then the squared deviations from it and, without rounding
// errors, the sum that says how far off it was. Never a difference of sums of squares.
#pragma once

#include "numeric.cuh"

namespace spikenorm {

// Where values are to be counted from so that no difference is rounded: from a centre far beyond their spread, since
// numbers within a factor of two of each other have exact differences (Sterbenz); else from zero.
constexpr int kFarBeyondSpread = 16;

// Sums of deviations from the centre squared and, from the base, without rounding errors.
template <typename P>
struct SumFromCentre;

// Sums of deviations from the pivot and of their magnitudes.
template <typename P>
struct SumFromPivot {
    P pivot, a, b;

    template <int N>
    SPIKENORM_DEVICE void add(const P (&x)[N]) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const P d = x[i] - pivot;
            a += d;
            b += magnitude(d);
        }
    }
    // For the second pass, when this holds the sums of all `count` values.
    SPIKENORM_DEVICE SumFromCentre<P> centred(P count) const {
        const P share = count > P(0) ? P(1) / count : P(0);
        const P centre = pivot + a * share;
        const bool far = magnitude(centre) > P(kFarBeyondSpread) * (b * share);
        return {centre, far ? centre : P(0), Accumulator<P>::empty(), P(0)};
    }
};

template <typename P>
struct SumFromCentre {
    P centre, base;
    Accumulator<P> a;
    P b;

    template <int N>
    SPIKENORM_DEVICE void add(const P (&x)[N], P bound) {
        P d[N];
        P largest = P(0);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            d[i] = x[i] - base;
            largest = larger(largest, magnitude(d[i]));
        }
        a.expect(largest, bound);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            a.add(d[i]);
            const P e = x[i] - centre;
            b = fused(e, e, b);
        }
    }
    SPIKENORM_DEVICE Pair sums(P bound) const { return {a.total(bound), b}; }
    // Of `count` values whose sums are `sums`; the mean relative to the pivot.
    SPIKENORM_DEVICE Moments moments(double count, P pivot, Pair sums) const {
        if (count == 0.0) return {0.0, 0.0, 0.0};
        const double from_base = sums.a / count;
        const double off = from_base - (static_cast<double>(centre) - base);
        const double m2 = sums.b - count * off * off;
        // NaN stays NaN; only rounding below zero is cut off.
        return {count, (static_cast<double>(base) - pivot) + from_base, m2 < 0.0 ? 0.0 : m2};
    }
};

}  // namespace spikenorm

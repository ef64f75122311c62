// Conversions between all six element types, through float64 with a single rounding. Integers take what is
// nearest in their range, cut towards zero, and 0 for NaN.
#pragma once

#include "numeric.cuh"

namespace spikenorm {

// Float64 to float32 so that rounding once more, to a half type, gives what rounding once would have: what
// is inexact gets an odd last bit and so is never taken for a tie.
SPIKENORM_DEVICE float round_to_odd(double value) {
    const float nearest = static_cast<float>(value);
    const double wide = nearest;
    if (wide == value || value != value) return nearest;
    const bool beyond = (wide < 0 ? -wide : wide) > (value < 0 ? -value : value);
    return bits_to_float((beyond ? float_to_bits(nearest) - 1 : float_to_bits(nearest)) | 1u);
}

template <typename T>
struct Scalar {
    static constexpr bool kFloat = true;  // no wider than float32
    static SPIKENORM_DEVICE double widen(T value) { return Element<T>::load(value); }
    static SPIKENORM_DEVICE T narrow(double value) { return Element<T>::store(round_to_odd(value)); }
};

template <>
SPIKENORM_DEVICE float Scalar<float>::narrow(double value) {
    return static_cast<float>(value);
}

template <>
struct Scalar<double> {
    static constexpr bool kFloat = false;
    static SPIKENORM_DEVICE double widen(double value) { return value; }
    static SPIKENORM_DEVICE double narrow(double value) { return value; }
};

template <>
struct Scalar<unsigned char> {
    static constexpr bool kFloat = false;
    static SPIKENORM_DEVICE double widen(unsigned char value) { return value; }
    static SPIKENORM_DEVICE unsigned char narrow(double value) {
        // NaN compares with nothing and falls through to 0.
        return value >= 255.0 ? 255 : value > 0.0 ? static_cast<unsigned char>(value) : 0;
    }
};

template <>
struct Scalar<long long> {
    static constexpr bool kFloat = false;
    static SPIKENORM_DEVICE double widen(long long value) { return static_cast<double>(value); }
    static SPIKENORM_DEVICE long long narrow(double value) {
        const double limit = 9223372036854775808.0;
        if (value >= limit) return 9223372036854775807ll;
        if (value <= -limit) return -9223372036854775807ll - 1;
        return value == value ? static_cast<long long>(value) : 0;
    }
};

// Types that float32 holds need no detour through float64.
template <typename To, typename From>
SPIKENORM_DEVICE To convert(From value) {
    if constexpr (Scalar<To>::kFloat && Scalar<From>::kFloat) {
        return Element<To>::store(Element<From>::load(value));
    } else {
        return Scalar<To>::narrow(Scalar<From>::widen(value));
    }
}

}  // namespace spikenorm

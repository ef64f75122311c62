// Values one by one: fill, cast, sum.
#pragma once

#include "scalar.cuh"
#include "span.cuh"

namespace spikenorm {

using ElementwiseParams = SpikenormElementwiseParams;

template <typename T>
SPIKENORM_DEVICE void fill(const ElementwiseParams& p) {
    const T value = Scalar<T>::narrow(p.value);
    for_each_pack<kWidest<T>>(p.span, [&](auto width, Index at) {
        constexpr int V = decltype(width)::value;
        Pack<T, V> out;
        for (int v = 0; v < V; ++v) out.value[v] = value;
        store_pack(p.out, at, out);
    });
}

// The wider type moves 16 bytes at a time, the other as many values.
template <typename To, typename From>
SPIKENORM_DEVICE void cast(const ElementwiseParams& p) {
    constexpr int kPack = kWidest<To> < kWidest<From> ? kWidest<To> : kWidest<From>;
    for_each_pack<kPack>(p.span, [&](auto width, Index at) {
        constexpr int V = decltype(width)::value;
        const Pack<From, V> in = load_pack<From, V>(p.a, at);
        Pack<To, V> out;
        for (int v = 0; v < V; ++v) out.value[v] = convert<To>(in.value[v]);
        store_pack(p.out, at, out);
    });
}

// out may be a or b.
template <typename T>
SPIKENORM_DEVICE void add(const ElementwiseParams& p) {
    using E = Element<T>;
    for_each_pack<kWidest<T>>(p.span, [&](auto width, Index at) {
        constexpr int V = decltype(width)::value;
        const Pack<T, V> a = load_pack<T, V>(p.a, at), b = load_pack<T, V>(p.b, at);
        Pack<T, V> out;
        for (int v = 0; v < V; ++v) out.value[v] = E::store(E::load(a.value[v]) + E::load(b.value[v]));
        store_pack(p.out, at, out);
    });
}

}  // namespace spikenorm

// How the threads of a grid share out values that do not depend on each other.
#pragma once

#include "kit_params.h"
#include "numeric.cuh"

namespace spikenorm {

using Index = unsigned long long;

SPIKENORM_DEVICE Index grid_thread() { return static_cast<Index>(block_index()) * thread_count() + thread_index(); }
SPIKENORM_DEVICE Index grid_threads() { return static_cast<Index>(block_count()) * thread_count(); }

// A number of neighbouring values as a type, for bodies that are compiled once per width.
template <int N>
struct Width {
    static constexpr int value = N;
};

// Calls body(Width, first value) for every pack of V and for every value before and after the packs.
template <int V, class Body>
SPIKENORM_DEVICE void for_each_pack(const SpikenormSpan& span, const Body& body) {
    const Index stride = grid_threads();
    for (Index i = grid_thread(); i < span.packs; i += stride) body(Width<V>{}, span.head + i * V);
    const Index packed = span.packs * V;
    for (Index i = grid_thread(); i < span.count - packed; i += stride) body(Width<1>{}, i < span.head ? i : i + packed);
}

template <typename T, int V>
SPIKENORM_DEVICE Pack<T, V> load_pack(const void* base, Index at) {
    using Bytes = Word<sizeof(Pack<T, V>)>;
    const Bytes bytes = *reinterpret_cast<const Bytes*>(static_cast<const T*>(base) + at);
    Pack<T, V> pack;
    memcpy(&pack, &bytes, sizeof pack);
    return pack;
}

template <typename T, int V>
SPIKENORM_DEVICE void store_pack(void* base, Index at, const Pack<T, V>& pack) {
    using Bytes = Word<sizeof(Pack<T, V>)>;
    Bytes bytes;
    memcpy(&bytes, &pack, sizeof pack);
    store_word(reinterpret_cast<Bytes*>(static_cast<T*>(base) + at), bytes);
}

// Values in 16 bytes.
template <typename T>
constexpr int kWidest = 16 / sizeof(T);

}  // namespace spikenorm

// What kernels/device.cuh offers on a GPU, over fibers on the host: each CUDA thread is a fiber that
// runs until it must wait, and a schedule decides who runs next. Tests only.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define SPIKENORM_DEVICE inline
#define SPIKENORM_KERNEL(name, Params, threads, function)                                          \
    static void name(const void* params) { function(*static_cast<const Params*>(params)); }        \
    static const spikenorm::emulation::Registration name##_registration{#name, name, threads, sizeof(Params)};

namespace spikenorm::emulation {

struct Registration {
    Registration(const char* name, void (*kernel)(const void*), unsigned most_threads, unsigned params_bytes);
};

// Of the running fiber.
unsigned thread_index();
unsigned block_index();
unsigned thread_count();
unsigned block_count();
char* shared_memory(unsigned rank_in_cluster);
char* own_shared_memory();
void wait_for_block();
void wait_for_cluster();
double exchange(double value, unsigned mask);
void copy(void* to, const void* from, unsigned bytes);
void finish_copies();
void pause();
std::uint32_t half_to_float_bits(std::uint16_t bits);
std::uint16_t float_to_half_bits(float value);

}  // namespace spikenorm::emulation

namespace spikenorm {

inline unsigned thread_index() { return emulation::thread_index(); }
inline unsigned thread_count() { return emulation::thread_count(); }
inline unsigned block_index() { return emulation::block_index(); }
inline unsigned block_count() { return emulation::block_count(); }
inline void block_sync() { emulation::wait_for_block(); }
inline char* dynamic_shared() { return emulation::own_shared_memory(); }
inline double shuffle_xor(double value, unsigned mask) { return emulation::exchange(value, mask); }
inline float shuffle_xor(float value, unsigned mask) { return static_cast<float>(emulation::exchange(value, mask)); }

template <int BYTES>
inline void copy_async(void* shared, const void* global) {
    emulation::copy(shared, global, BYTES);
}
inline void copy_wait() { emulation::finish_copies(); }
inline void prefetch(const void*) {}

// All of the barrier is where it is waited for.
inline void cluster_arrive() {}
inline void cluster_wait() { emulation::wait_for_cluster(); }
template <typename T>
inline const T* cluster_peer(const T* shared, unsigned rank) {
    const auto offset = reinterpret_cast<const char*>(shared) - emulation::own_shared_memory();
    return reinterpret_cast<const T*>(emulation::shared_memory(rank) + offset);
}

// Fibers switch only where they wait, so an atomic is an ordinary operation; writes are seen in the
// order they are made.
inline void device_fence() {}
inline unsigned atomic_add(unsigned* at, unsigned value) {
    const unsigned before = *at;
    *at = before + value;
    return before;
}
inline unsigned atomic_increment(unsigned* at, unsigned last) {
    const unsigned before = *at;
    *at = before >= last ? 0 : before + 1;
    return before;
}
inline unsigned load_flag(const unsigned* at) { return *at; }
inline void spin() { emulation::pause(); }
template <typename T>
inline T load_fresh(const T* at) {
    return *at;
}

template <int BYTES>
struct alignas(BYTES) Word {
    unsigned char bytes[BYTES];
};
template <typename W>
inline void store_word(W* at, W word) {
    *at = word;
}

inline float bits_to_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
inline unsigned float_to_bits(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
inline float half_to_float(unsigned short bits) { return bits_to_float(emulation::half_to_float_bits(bits)); }
inline unsigned short float_to_half(float value) { return emulation::float_to_half_bits(value); }
inline unsigned floats_to_halves(float first, float second) {
    return float_to_half(first) | static_cast<unsigned>(float_to_half(second)) << 16;
}
constexpr bool kConvertsBFloat16 = false;
inline unsigned floats_to_bfloats(float, float) { return 0; }
inline float magnitude(float value) { return std::fabs(value); }
inline double magnitude(double value) { return std::fabs(value); }
inline float larger(float a, float b) { return std::fmax(a, b); }
inline double larger(double a, double b) { return std::fmax(a, b); }
inline float rough_inverse_root(float value) { return 1.0f / std::sqrt(value); }
inline float reciprocal_of(float value) { return 1.0f / value; }
inline float fused(float a, float b, float c) { return std::fma(a, b, c); }
inline double fused(double a, double b, double c) { return std::fma(a, b, c); }
inline double square_root(double value) { return std::sqrt(value); }
inline float square_root(float value) { return std::sqrt(value); }
inline double exponential(double value) { return std::exp(value); }
inline float exponential(float value) { return std::exp(value); }
inline double logarithm(double value) { return std::log(value); }
inline double power(double base, double exponent) { return std::pow(base, exponent); }

}  // namespace spikenorm

// Everything the kernels ask of the machine. This is the only file with PTX in it; the host emulation
// (emulation/execution.h) offers the same names over fibers.
#pragma once

#if defined(SPIKENORM_EMULATION)
#include "execution.h"
#else

#define SPIKENORM_DEVICE __device__ __forceinline__
// A kernel named for the host, with the most threads it is launched with. Two blocks of 512 threads
// share a multiprocessor, so those get 64 registers.
#define SPIKENORM_KERNEL(name, Params, threads, function)                                             \
    extern "C" __global__ void __launch_bounds__(threads, 2)                                          \
        name(const __grid_constant__ Params params) {                                                 \
        function(params);                                                                             \
    }

namespace spikenorm {

SPIKENORM_DEVICE unsigned thread_index() { return threadIdx.x; }
SPIKENORM_DEVICE unsigned thread_count() { return blockDim.x; }
SPIKENORM_DEVICE unsigned block_index() { return blockIdx.x; }
SPIKENORM_DEVICE unsigned block_count() { return gridDim.x; }
SPIKENORM_DEVICE void block_sync() { __syncthreads(); }

SPIKENORM_DEVICE char* dynamic_shared() {
    extern __shared__ __align__(128) char shared[];
    return shared;
}

// Value of lane (lane ^ mask) of the warp; every lane of the warp must call.
SPIKENORM_DEVICE double shuffle_xor(double value, unsigned mask) {
    return __shfl_xor_sync(0xffffffffu, value, mask);
}
SPIKENORM_DEVICE float shuffle_xor(float value, unsigned mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }

// Starts copying BYTES (4, 8 or 16) from global to shared memory, both aligned to BYTES. The bytes are
// there for this thread after copy_wait, and for the block after a block_sync after that.
template <int BYTES>
SPIKENORM_DEVICE void copy_async(void* shared, const void* global) {
#if __CUDA_ARCH__ >= 800
    const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    if constexpr (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(global), "n"(BYTES) : "memory");
    }
#else
    if constexpr (BYTES == 16) {
        *static_cast<uint4*>(shared) = __ldg(static_cast<const uint4*>(global));
    } else if constexpr (BYTES == 8) {
        *static_cast<uint2*>(shared) = __ldg(static_cast<const uint2*>(global));
    } else {
        *static_cast<unsigned*>(shared) = __ldg(static_cast<const unsigned*>(global));
    }
#endif
}

SPIKENORM_DEVICE void copy_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// Says that the value will be read soon.
SPIKENORM_DEVICE void prefetch(const void* global) { asm volatile("prefetch.global.L1 [%0];" ::"l"(global)); }

// Barrier over the blocks of a cluster, in two halves; orders shared and global memory among them. Where the machine
// code is older than clusters the plan never asks for one.
SPIKENORM_DEVICE void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
SPIKENORM_DEVICE void cluster_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// The same shared-memory address in block `rank` of the cluster.
template <typename T>
SPIKENORM_DEVICE const T* cluster_peer(const T* shared, unsigned rank) {
#if __CUDA_ARCH__ >= 900
    unsigned long long peer;
    asm volatile("mapa.u64 %0, %1, %2;" : "=l"(peer) : "l"(shared), "r"(rank));
    return reinterpret_cast<const T*>(peer);
#else
    return shared;
#endif
}

// Orders this thread's earlier writes before its later ones, as seen by the whole device.
SPIKENORM_DEVICE void device_fence() { __threadfence(); }
SPIKENORM_DEVICE unsigned atomic_add(unsigned* at, unsigned value) { return atomicAdd(at, value); }
// Adds one, and returns to zero after `last`. Gives the value before.
SPIKENORM_DEVICE unsigned atomic_increment(unsigned* at, unsigned last) { return atomicInc(at, last); }
// Reads a flag another block writes.
SPIKENORM_DEVICE unsigned load_flag(const unsigned* at) { return *static_cast<const volatile unsigned*>(at); }
// One turn of a waiting loop.
SPIKENORM_DEVICE void spin() {}

// Reads what another block wrote before a fence: from L2, since L1 is not coherent.
SPIKENORM_DEVICE double load_fresh(const double* at) { return __ldcg(at); }
SPIKENORM_DEVICE float load_fresh(const float* at) { return __ldcg(at); }

// BYTES as one word, so that they are moved by one instruction.
template <int BYTES>
struct WordOf;
template <>
struct WordOf<1> {
    using Type = unsigned char;
};
template <>
struct WordOf<2> {
    using Type = unsigned short;
};
template <>
struct WordOf<4> {
    using Type = unsigned;
};
template <>
struct WordOf<8> {
    using Type = uint2;
};
template <>
struct WordOf<16> {
    using Type = uint4;
};
template <int BYTES>
using Word = typename WordOf<BYTES>::Type;

// Said outright, because the compiler takes an assignment apart where it finds the parts at hand.
template <typename W>
SPIKENORM_DEVICE void store_word(W* at, W word) {
    __stwb(at, word);
}

SPIKENORM_DEVICE float half_to_float(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

SPIKENORM_DEVICE unsigned short float_to_half(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

// Two at a time, the first in the low half.
#if __CUDA_ARCH__ >= 800
SPIKENORM_DEVICE unsigned floats_to_halves(float first, float second) {
    unsigned bits;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
    return bits;
}
constexpr bool kConvertsBFloat16 = true;
SPIKENORM_DEVICE unsigned floats_to_bfloats(float first, float second) {
    unsigned bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
    return bits;
}
#else
SPIKENORM_DEVICE unsigned floats_to_halves(float first, float second) {
    return float_to_half(first) | static_cast<unsigned>(float_to_half(second)) << 16;
}
constexpr bool kConvertsBFloat16 = false;
SPIKENORM_DEVICE unsigned floats_to_bfloats(float, float) { return 0; }
#endif

SPIKENORM_DEVICE float bits_to_float(unsigned bits) { return __uint_as_float(bits); }
SPIKENORM_DEVICE unsigned float_to_bits(float value) { return __float_as_uint(value); }

SPIKENORM_DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
SPIKENORM_DEVICE double fused(double a, double b, double c) { return __fma_rn(a, b, c); }
SPIKENORM_DEVICE float magnitude(float value) { return fabsf(value); }
SPIKENORM_DEVICE double magnitude(double value) { return fabs(value); }
// The larger, NaN left out.
SPIKENORM_DEVICE float larger(float a, float b) { return fmaxf(a, b); }
SPIKENORM_DEVICE double larger(double a, double b) { return fmax(a, b); }
SPIKENORM_DEVICE float rough_inverse_root(float value) { return rsqrtf(value); }
SPIKENORM_DEVICE float reciprocal_of(float value) { return __frcp_rn(value); }
SPIKENORM_DEVICE double square_root(double value) { return __dsqrt_rn(value); }
SPIKENORM_DEVICE float square_root(float value) { return __fsqrt_rn(value); }
SPIKENORM_DEVICE double exponential(double value) { return exp(value); }
SPIKENORM_DEVICE float exponential(float value) { return expf(value); }
SPIKENORM_DEVICE double logarithm(double value) { return log(value); }
SPIKENORM_DEVICE double power(double base, double exponent) { return pow(base, exponent); }

}  // namespace spikenorm
#endif

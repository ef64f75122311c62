// The part of the driver's interface that the emulated driver offers, in this project's own words: the
// numbers and layouts are those of CUDA 12 (cuda.h), which need not be installed.
#pragma once

#include <cstddef>
#include <cstdint>

#define SPIKENORM_API extern "C" __attribute__((visibility("default")))

namespace spikenorm::emulation::driver {

enum Result : int {
    kSuccess = 0,
    kInvalidValue = 1,
    kOutOfMemory = 2,
    kNotInitialized = 3,
    kNoDevice = 100,
    kInvalidDevice = 101,
    kInvalidImage = 200,
    kInvalidContext = 201,
    kNoBinaryForGpu = 209,
    kUnsupportedPtxVersion = 222,
    kInvalidHandle = 400,
    kNotFound = 500,
    kNotReady = 600,
    kIllegalAddress = 700,
    kLaunchOutOfResources = 701,
    kLaunchFailed = 719,
    kCooperativeLaunchTooLarge = 720,
    kNotPermitted = 800,
    kNotSupported = 801,
    kStreamCaptureUnsupported = 900,
    kStreamCaptureInvalidated = 901,
    kStreamCaptureUnmatched = 903,
    kStreamCaptureIsolation = 905,
    kCapturedEvent = 907,
    kInvalidClusterSize = 912,
};

enum DeviceAttribute : int {
    kMaxThreadsPerBlock = 1,
    kMaxBlockDimX = 2,
    kMaxGridDimX = 5,
    kMaxSharedPerBlock = 8,
    kWarpSize = 10,
    kClockRate = 13,
    kMultiprocessorCount = 16,
    kMemoryClockRate = 36,
    kMemoryBusWidth = 37,
    kL2CacheSize = 38,
    kMaxThreadsPerMultiprocessor = 39,
    kUnifiedAddressing = 41,
    kCapabilityMajor = 75,
    kCapabilityMinor = 76,
    kMaxSharedPerMultiprocessor = 81,
    kMaxRegistersPerMultiprocessor = 82,
    kCooperativeLaunch = 95,
    kMaxSharedPerBlockOptin = 97,
    kReservedSharedPerBlock = 111,
    kMemoryPoolsSupported = 115,
    kClusterLaunch = 120,
};

enum FunctionAttribute : int {
    kFunctionMaxThreads = 0,
    kFunctionStaticShared = 1,
    kFunctionConstant = 2,
    kFunctionLocal = 3,
    kFunctionRegisters = 4,
    kFunctionPtxVersion = 5,
    kFunctionBinaryVersion = 6,
    kFunctionMaxDynamicShared = 8,
    kFunctionNonPortableCluster = 14,
};

enum PointerAttribute : int {
    kPointerContext = 1,
    kPointerMemoryType = 2,
    kPointerDevicePointer = 3,
    kPointerDeviceOrdinal = 9,
    kPointerRangeStart = 11,
    kPointerRangeSize = 12,
};
constexpr int kMemoryTypeDevice = 2;

enum PoolAttribute : int {
    kPoolReleaseThreshold = 4,
    kPoolReservedCurrent = 5,
    kPoolReservedHigh = 6,
    kPoolUsedCurrent = 7,
    kPoolUsedHigh = 8,
};

enum CaptureMode : int { kCaptureGlobal = 0, kCaptureThreadLocal = 1, kCaptureRelaxed = 2 };
enum CaptureStatus : int { kCaptureNone = 0, kCaptureActive = 1, kCaptureInvalidated = 2 };

constexpr unsigned kStreamNonBlocking = 1;
constexpr unsigned kEventDisableTiming = 2;

enum LaunchAttributeId : int { kAttributeCooperative = 2, kAttributeCluster = 4 };

struct LaunchAttribute {
    int id;
    char pad[4];
    union {
        char bytes[64];
        unsigned cluster[3];
        int cooperative;
    } value;
};
static_assert(sizeof(LaunchAttribute) == 72, "CUlaunchAttribute");

struct LaunchConfig {
    unsigned grid[3];
    unsigned block[3];
    unsigned shared_bytes;
    void* stream;
    LaunchAttribute* attributes;
    unsigned attribute_count;
};
static_assert(sizeof(LaunchConfig) == 56, "CUlaunchConfig");

using Address = std::uint64_t;

}  // namespace spikenorm::emulation::driver

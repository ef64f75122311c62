// Devices and contexts: an H200's figures, so that plans are the real ones.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <sstream>

#include "call.h"

namespace spikenorm::emulation::driver {

namespace {

constexpr std::uint64_t kDefaultMemory = 4ull << 30;
constexpr std::uint64_t kDefaultDevices = 2;
constexpr int kDefaultVersion = 13000;

const std::map<int, int>& attributes() {
    static const std::map<int, int> all{
        {kMaxThreadsPerBlock, 1024}, {kMaxBlockDimX, 1024}, {kMaxGridDimX, 0x7fffffff}, {kMaxSharedPerBlock, 49152},
        {kWarpSize, 32}, {kClockRate, 1980000}, {kMultiprocessorCount, 132}, {kMemoryClockRate, 3201000},
        {kMemoryBusWidth, 6144}, {kL2CacheSize, 62914560}, {kMaxThreadsPerMultiprocessor, 2048},
        {kUnifiedAddressing, 1}, {kCapabilityMajor, 9}, {kCapabilityMinor, 0}, {kMaxSharedPerMultiprocessor, 233472},
        {kMaxRegistersPerMultiprocessor, 65536}, {kCooperativeLaunch, 1}, {kMaxSharedPerBlockOptin, 232448},
        {kReservedSharedPerBlock, 1024}, {kMemoryPoolsSupported, 1}, {kClusterLaunch, 1},
    };
    return all;
}

Device* find_device(int ordinal) {
    const auto& devices = state().devices;
    return ordinal >= 0 && static_cast<std::size_t>(ordinal) < devices.size() ? devices[ordinal].get() : nullptr;
}

template <class Body>
int device_call(const char* function, int ordinal, Body body) {
    return plain_call(function, [&](State&) -> int {
        Device* device = find_device(ordinal);
        return device == nullptr ? kInvalidDevice : body(*device);
    });
}

}  // namespace

State& state() {
    // Never destroyed: other libraries may call while the process ends.
    static State& one = *new State;
    return one;
}

Device*& current_device() {
    thread_local Device* device = nullptr;
    return device;
}

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
    const char* text = std::getenv(name);
    return text == nullptr || *text == '\0' ? otherwise : std::strtoull(text, nullptr, 10);
}

int driver_version() { return static_cast<int>(setting("SPIKENORM_EMULATED_DRIVER", kDefaultVersion)); }

void complain(const std::string& what) { std::fprintf(stderr, "emulated CUDA driver: %s\n", what.c_str()); }

namespace {

// What a test has asked for while the process runs.
struct Plan {
    std::vector<std::string> functions;
    int code = 0;
    // Calls of these functions that pass, and that fail after those.
    std::uint64_t passing = 0, failing = 0;
};
Plan asked;

int asked_fault(const char* function) {
    if (asked.failing == 0) return 0;
    if (std::find(asked.functions.begin(), asked.functions.end(), function) == asked.functions.end()) return 0;
    if (asked.passing > 0) {
        --asked.passing;
        return 0;
    }
    --asked.failing;
    return asked.code;
}

}  // namespace

int planned_fault(const char* function) {
    if (const int code = asked_fault(function)) return code;
    const char* plan = std::getenv("SPIKENORM_EMULATED_FAULT");
    if (plan == nullptr) return 0;
    const std::size_t length = std::strlen(function);
    if (std::strncmp(plan, function, length) != 0 || plan[length] != '=') return 0;
    char* rest = nullptr;
    const int code = static_cast<int>(std::strtol(plan + length + 1, &rest, 10));
    const std::uint64_t which = *rest == '@' ? std::strtoull(rest + 1, nullptr, 10) : 1;
    return ++state().calls[function] == which ? code : 0;
}

}  // namespace spikenorm::emulation::driver

using namespace spikenorm::emulation::driver;

// Lets `count` calls fail of the functions named, with spaces between, once `passing` calls of any of them have passed.
// Returns how many failures asked for before have not been met.
SPIKENORM_API std::uint64_t spikenorm_emulated_fail(const char* functions, int code, std::uint64_t passing,
                                                    std::uint64_t count) {
    std::lock_guard<std::recursive_mutex> lock(state().mutex);
    const std::uint64_t left = asked.failing;
    std::istringstream names(functions);
    asked = {{std::istream_iterator<std::string>(names), {}}, code, passing, count};
    return left;
}

SPIKENORM_API int cuInit(unsigned) {
    std::lock_guard<std::recursive_mutex> lock(state().mutex);
    if (const auto code = setting("SPIKENORM_EMULATED_INIT_ERROR", 0)) return static_cast<int>(code);
    State& all = state();
    if (all.initialized) return kSuccess;
    const auto count = setting("SPIKENORM_EMULATED_DEVICES", kDefaultDevices);
    if (count == 0) return kNoDevice;
    for (unsigned i = 0; i < count; ++i) {
        auto device = std::make_unique<Device>();
        device->ordinal = static_cast<int>(i);
        device->limit = setting("SPIKENORM_EMULATED_MEMORY", kDefaultMemory);
        device->legacy = std::make_shared<Stream>();
        device->legacy->device = device.get();
        device->legacy->blocking = false;
        all.devices.push_back(std::move(device));
    }
    all.initialized = true;
    return kSuccess;
}

SPIKENORM_API int cuDriverGetVersion(int* version) {
    *version = driver_version();
    return kSuccess;
}

SPIKENORM_API int cuDeviceGetCount(int* count) {
    return plain_call(__func__, [&](State& all) -> int {
        *count = static_cast<int>(all.devices.size());
        return kSuccess;
    });
}

SPIKENORM_API int cuDeviceGet(int* device, int ordinal) {
    return device_call(__func__, ordinal, [&](Device& found) -> int {
        *device = found.ordinal;
        return kSuccess;
    });
}

SPIKENORM_API int cuDeviceGetName(char* name, int size, int ordinal) {
    return device_call(__func__, ordinal, [&](Device&) -> int {
        std::snprintf(name, static_cast<std::size_t>(size), "spikenorm emulated device");
        return kSuccess;
    });
}

SPIKENORM_API int cuDeviceGetAttribute(int* value, int attribute, int ordinal) {
    return device_call(__func__, ordinal, [&](Device&) -> int {
        const auto at = attributes().find(attribute);
        if (at == attributes().end()) return kInvalidValue;
        *value = at->second;
        return kSuccess;
    });
}

SPIKENORM_API int cuDeviceTotalMem_v2(std::size_t* bytes, int ordinal) {
    return device_call(__func__, ordinal, [&](Device& device) -> int {
        *bytes = device.limit;
        return kSuccess;
    });
}

SPIKENORM_API int cuDeviceGetUuid_v2(char* uuid, int ordinal) {
    return device_call(__func__, ordinal, [&](Device&) -> int {
        std::memset(uuid, ordinal, 16);
        return kSuccess;
    });
}

SPIKENORM_API int cuDeviceGetUuid(char* uuid, int ordinal) { return cuDeviceGetUuid_v2(uuid, ordinal); }

SPIKENORM_API int cuDeviceCanAccessPeer(int* can, int, int) {
    *can = 0;
    return kSuccess;
}

SPIKENORM_API int cuDevicePrimaryCtxRetain(void** context, int ordinal) {
    return device_call(__func__, ordinal, [&](Device& device) -> int {
        ++device.retained;
        *context = &device;
        return kSuccess;
    });
}

SPIKENORM_API int cuDevicePrimaryCtxRelease_v2(int ordinal) {
    return device_call(__func__, ordinal, [&](Device& device) -> int {
        if (device.retained == 0) return kInvalidContext;
        --device.retained;
        return kSuccess;
    });
}

SPIKENORM_API int cuCtxGetCurrent(void** context) {
    *context = current_device();
    return kSuccess;
}

SPIKENORM_API int cuCtxSetCurrent(void* context) {
    return plain_call(__func__, [&](State& all) -> int {
        for (const auto& device : all.devices) {
            if (device.get() != context) continue;
            if (device->retained == 0) return kInvalidContext;
            current_device() = device.get();
            return kSuccess;
        }
        current_device() = nullptr;
        return context == nullptr ? kSuccess : kInvalidContext;
    });
}

SPIKENORM_API int cuCtxGetDevice(int* ordinal) {
    return context_call(__func__, [&](Device& device) -> int {
        *ordinal = device.ordinal;
        return kSuccess;
    });
}

SPIKENORM_API int cuCtxSynchronize() {
    return context_call(__func__, [&](Device& device) -> int {
        int refused = kSuccess;
        for (const auto& [handle, stream] : state().streams) {
            if (stream->device == &device && is_capturing(*stream)) refused = refuse_in_capture(*stream);
        }
        if (refused != kSuccess) return refused;
        run_all(device);
        after_waiting(device);
        return device.fault;
    });
}

// Modules, functions and launches, with the checks a real driver makes.
#include <cstring>

#include "call.h"

namespace spikenorm::emulation::driver {

namespace {

constexpr unsigned kSharedWithoutOptIn = 49152, kSharedOptIn = 232448, kSharedPerMultiprocessor = 233472,
                   kSharedReserved = 1024, kMultiprocessors = 132, kThreadsPerMultiprocessor = 2048,
                   kThreadsPerBlock = 1024, kPortableCluster = 8;
// The kernels are compiled for two blocks of their most threads on a multiprocessor.
constexpr unsigned kBlocksCompiledFor = 2;
constexpr std::uint32_t kFatBinary = 0xba55ed50;
constexpr int kVersionOfNvcc = 13000;

struct Shape {
    unsigned cluster = 1;
    bool cooperative = false;
};

unsigned resident_blocks(const Function& function, unsigned threads, unsigned shared) {
    const unsigned by_memory = kSharedPerMultiprocessor / (shared + kSharedReserved);
    const unsigned by_threads = kThreadsPerMultiprocessor / threads;
    const unsigned by_registers = kBlocksCompiledFor * function.kernel->most_threads / threads;
    return kMultiprocessors * std::min(by_memory, std::min(by_threads, by_registers));
}

int check(const Function& function, const LaunchConfig& config, const Shape& shape) {
    const unsigned grid = config.grid[0], threads = config.block[0];
    if (grid == 0 || threads == 0 || threads > kThreadsPerBlock || grid > 0x7fffffffu) return kInvalidValue;
    if (config.grid[1] != 1 || config.grid[2] != 1 || config.block[1] != 1 || config.block[2] != 1 || threads % 32 != 0) {
        complain(function.name + ": grids and blocks are one-dimensional here, blocks of whole warps");
        return kNotSupported;
    }
    if (threads > function.kernel->most_threads) return kLaunchOutOfResources;
    if (config.shared_bytes > function.dynamic_shared) return kInvalidValue;
    if (shape.cluster == 0 || shape.cluster > kPortableCluster || grid % shape.cluster != 0) return kInvalidClusterSize;
    if (shape.cooperative && grid > resident_blocks(function, threads, config.shared_bytes)) return kCooperativeLaunchTooLarge;
    return kSuccess;
}

// What a word of the parameters points at, where that is a mistake.
std::string mistake(const std::vector<char>& params, const Device& device) {
    for (std::size_t at = 0; at + 8 <= params.size(); at += 8) {
        Address word;
        std::memcpy(&word, params.data() + at, 8);
        const std::string where = " (byte " + std::to_string(at) + " of its parameters)";
        if (find_freed(word) != nullptr) return "uses memory that has been freed" + where;
        const Allocation* found = find_live(word, 1);
        if (found != nullptr && found->device != &device) return "uses memory of another device" + where;
    }
    return "";
}

void run(const Function& function, const std::vector<char>& params, Launch launch) {
    Device& device = *function.device;
    const std::uint64_t number = state().launches++;
    launch.schedule = static_cast<unsigned>(setting("SPIKENORM_EMULATED_SCHEDULE", number) % kSchedules);
    launch.seed = static_cast<unsigned>(number);
    std::string why = mistake(params, device);
    if (!why.empty()) return fault(device, kIllegalAddress, function.name + " " + why);
    if (!run_kernel(*function.kernel, params.data(), launch, why)) fault(device, kLaunchFailed, function.name + ": " + why);
}

int launch(const char* call, void* handle, const LaunchConfig& config, const Shape& shape, void** arguments) {
    return stream_call(call, config.stream, [&](const std::shared_ptr<Stream>& stream) -> int {
        const auto* function = static_cast<const Function*>(handle);
        if (function == nullptr || function->device != stream->device || stream->device != current_device()) return kInvalidHandle;
        if (const int code = check(*function, config, shape)) return code;
        if (arguments == nullptr || arguments[0] == nullptr) return kInvalidValue;
        const auto* first = static_cast<const char*>(arguments[0]);
        std::vector<char> params(first, first + function->kernel->params_bytes);
        Launch launch{};
        launch.grid = config.grid[0];
        launch.threads = config.block[0];
        launch.cluster = shape.cluster;
        launch.shared_bytes = config.shared_bytes;
        // As few at a time as may be: stacks and shared memory stay in the cache.
        launch.resident = shape.cooperative ? config.grid[0] : shape.cluster;
        return enqueue(stream, [function, params = std::move(params), launch] { run(*function, params, launch); });
    });
}

}  // namespace
}  // namespace spikenorm::emulation::driver

using namespace spikenorm::emulation::driver;

SPIKENORM_API int cuModuleLoadData(void** handle, const void* image) {
    return context_call(__func__, [&](Device& device) -> int {
        if (const int code = refuse_unsafe_call()) return code;
        std::uint32_t magic;
        std::memcpy(&magic, image, sizeof magic);
        if (magic != kFatBinary) return kInvalidImage;
        // What nvcc 13 makes needs a driver of CUDA 13.
        if (driver_version() < kVersionOfNvcc) return kUnsupportedPtxVersion;
        auto module = std::make_unique<Module>();
        module->device = &device;
        *handle = module.get();
        state().modules.emplace(*handle, std::move(module));
        return kSuccess;
    });
}

SPIKENORM_API int cuModuleLoadDataEx(void** handle, const void* image, unsigned, int*, void**) {
    return cuModuleLoadData(handle, image);
}

SPIKENORM_API int cuModuleUnload(void* handle) {
    return plain_call(__func__, [&](State& all) -> int {
        const auto at = all.modules.find(handle);
        if (at == all.modules.end()) return kInvalidHandle;
        run_all(*at->second->device);
        all.modules.erase(at);
        return kSuccess;
    });
}

SPIKENORM_API int cuModuleGetFunction(void** handle, void* module_handle, const char* name) {
    return context_call(__func__, [&](Device&) -> int {
        const auto at = state().modules.find(module_handle);
        if (at == state().modules.end()) return kInvalidHandle;
        Module& module = *at->second;
        auto& function = module.functions[name];
        if (function == nullptr) {
            const auto* kernel = spikenorm::emulation::find_kernel(name);
            if (kernel == nullptr) {
                module.functions.erase(name);
                return kNotFound;
            }
            function = std::make_unique<Function>(Function{name, kernel, module.device, kSharedWithoutOptIn});
        }
        *handle = function.get();
        return kSuccess;
    });
}

SPIKENORM_API int cuFuncGetAttribute(int* value, int attribute, void* handle) {
    return context_call(__func__, [&](Device&) -> int {
        const auto& function = *static_cast<const Function*>(handle);
        switch (attribute) {
            case kFunctionMaxThreads: *value = static_cast<int>(function.kernel->most_threads); return kSuccess;
            case kFunctionStaticShared:
            case kFunctionConstant:
            case kFunctionLocal:
            case kFunctionNonPortableCluster: *value = 0; return kSuccess;
            case kFunctionRegisters: *value = 64; return kSuccess;
            case kFunctionPtxVersion:
            case kFunctionBinaryVersion: *value = 90; return kSuccess;
            case kFunctionMaxDynamicShared: *value = static_cast<int>(function.dynamic_shared); return kSuccess;
            default: return kInvalidValue;
        }
    });
}

SPIKENORM_API int cuFuncSetAttribute(void* handle, int attribute, int value) {
    return context_call(__func__, [&](Device&) -> int {
        if (attribute != kFunctionMaxDynamicShared || value < 0 || static_cast<unsigned>(value) > kSharedOptIn) return kInvalidValue;
        static_cast<Function*>(handle)->dynamic_shared = static_cast<unsigned>(value);
        return kSuccess;
    });
}

SPIKENORM_API int cuLaunchKernelEx(const LaunchConfig* config, void* function, void** arguments, void**) {
    Shape shape;
    for (unsigned i = 0; i < config->attribute_count; ++i) {
        const LaunchAttribute& attribute = config->attributes[i];
        if (attribute.id == kAttributeCooperative) {
            shape.cooperative = attribute.value.cooperative != 0;
        } else if (attribute.id == kAttributeCluster && attribute.value.cluster[1] == 1 && attribute.value.cluster[2] == 1) {
            shape.cluster = attribute.value.cluster[0];
        } else {
            return kInvalidValue;
        }
    }
    return launch(__func__, function, *config, shape, arguments);
}

SPIKENORM_API int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                                 unsigned block_y, unsigned block_z, unsigned shared, void* stream, void** arguments, void**) {
    const LaunchConfig config{{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared, stream, nullptr, 0};
    return launch(__func__, function, config, Shape{}, arguments);
}

// Kernels that have run, replays included.
SPIKENORM_API std::uint64_t spikenorm_emulated_launches() {
    std::lock_guard<std::recursive_mutex> lock(state().mutex);
    return state().launches;
}

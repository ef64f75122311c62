// Running one launch: what the tests and the emulated driver ask of emulator.cpp.
#pragma once

#include <cstdint>
#include <string>

namespace spikenorm::emulation {

struct Kernel {
    void (*run)(const void*);
    unsigned most_threads;
    unsigned params_bytes;
};

// Mirrored by tests/emulation/support/emulator.rs.
struct Launch {
    std::uint32_t grid, threads, cluster, shared_bytes;
    std::uint32_t resident;  // blocks that may run at the same time, a multiple of cluster
    std::uint32_t schedule, seed;
};

// The schedules of emulator.cpp.
constexpr unsigned kSchedules = 5;

// Null where there is no kernel of that name.
const Kernel* find_kernel(const char* name);

// One launch at a time. False, with the reason in `message`, when it could not run to its end.
bool run_kernel(const Kernel& kernel, const void* params, const Launch& launch, std::string& message);

}  // namespace spikenorm::emulation

// How every exported function begins: the lock, faults the environment asks for, the state of the context.
#pragma once

#include "state.h"

namespace spikenorm::emulation::driver {

// SPIKENORM_EMULATED_FAULT="cuMemAllocAsync=2@3" makes the third call of that function return 2.
int planned_fault(const char* function);

// For functions that need no context.
template <class Body>
int plain_call(const char* function, Body body) {
    std::lock_guard<std::recursive_mutex> lock(state().mutex);
    if (const int code = planned_fault(function)) return code;
    if (!state().initialized) return kNotInitialized;
    return body(state());
}

// For functions that work in the current context.
template <class Body>
int context_call(const char* function, Body body) {
    return plain_call(function, [&](State&) -> int {
        Device* device = current_device();
        if (device == nullptr) return kInvalidContext;
        if (device->fault != kSuccess) return device->fault;
        return body(*device);
    });
}

// For functions that put work on a stream.
template <class Body>
int stream_call(const char* function, void* handle, Body body) {
    return context_call(function, [&](Device&) -> int {
        const std::shared_ptr<Stream> stream = find_stream(handle);
        if (stream == nullptr) return kInvalidHandle;
        if (stream->device->fault != kSuccess) return stream->device->fault;
        return body(stream);
    });
}

}  // namespace spikenorm::emulation::driver

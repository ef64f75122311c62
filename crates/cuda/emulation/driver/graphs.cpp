// Capturing what a stream is given instead of running it, and running it again and again.
#include "call.h"

using namespace spikenorm::emulation::driver;

SPIKENORM_API int cuStreamBeginCapture_v2(void* handle, int mode) {
    return stream_call(__func__, handle, [&](const std::shared_ptr<Stream>& stream) -> int {
        if (mode < kCaptureGlobal || mode > kCaptureRelaxed) return kInvalidValue;
        // The legacy stream takes turns with others, which a graph cannot say.
        if (stream == stream->device->legacy) return kStreamCaptureUnsupported;
        if (is_capturing(*stream)) return kStreamCaptureUnsupported;
        stream->capture = std::make_unique<Capture>();
        stream->capture->mode = mode;
        stream->capture->thread = std::this_thread::get_id();
        stream->capture->id = ++state().captures;
        return kSuccess;
    });
}

SPIKENORM_API int cuStreamEndCapture(void* handle, void** graph) {
    return stream_call(__func__, handle, [&](const std::shared_ptr<Stream>& stream) -> int {
        *graph = nullptr;
        if (!is_capturing(*stream)) return kInvalidValue;
        if (stream->capture->mode != kCaptureRelaxed && stream->capture->thread != std::this_thread::get_id()) {
            return 908;  // CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD
        }
        const auto capture = std::move(stream->capture);
        if (capture->invalidated) return kStreamCaptureInvalidated;
        *graph = capture->graph.get();
        state().graphs.emplace(*graph, capture->graph);
        return kSuccess;
    });
}

SPIKENORM_API int cuStreamIsCapturing(void* handle, int* status) {
    return stream_call(__func__, handle, [&](const std::shared_ptr<Stream>& stream) -> int {
        *status = !is_capturing(*stream)        ? kCaptureNone
                  : stream->capture->invalidated ? kCaptureInvalidated
                                                 : kCaptureActive;
        return kSuccess;
    });
}

SPIKENORM_API int cuStreamGetCaptureInfo_v2(void* handle, int* status, std::uint64_t* id, void** graph,
                                            const void** dependencies, std::size_t* count) {
    if (const int code = cuStreamIsCapturing(handle, status)) return code;
    return stream_call(__func__, handle, [&](const std::shared_ptr<Stream>& stream) -> int {
        if (!is_capturing(*stream)) return kSuccess;
        if (id != nullptr) *id = stream->capture->id;
        if (graph != nullptr) *graph = stream->capture->graph.get();
        if (dependencies != nullptr) *dependencies = nullptr;
        if (count != nullptr) *count = 0;
        return kSuccess;
    });
}

SPIKENORM_API int cuThreadExchangeStreamCaptureMode(int* mode) {
    if (*mode < kCaptureGlobal || *mode > kCaptureRelaxed) return kInvalidValue;
    std::swap(*mode, thread_capture_mode());
    return kSuccess;
}

SPIKENORM_API int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
    return context_call(__func__, [&](Device&) -> int {
        const auto at = state().graphs.find(graph);
        if (at == state().graphs.end()) return kInvalidHandle;
        const auto copy = std::make_shared<Graph>(*at->second);
        *executable = copy.get();
        state().executables.emplace(*executable, copy);
        return kSuccess;
    });
}

SPIKENORM_API int cuGraphUpload(void* executable, void*) {
    return context_call(__func__, [&](Device&) -> int {
        return state().executables.count(executable) ? kSuccess : kInvalidHandle;
    });
}

SPIKENORM_API int cuGraphLaunch(void* executable, void* handle) {
    return stream_call(__func__, handle, [&](const std::shared_ptr<Stream>& stream) -> int {
        const auto at = state().executables.find(executable);
        if (at == state().executables.end()) return kInvalidHandle;
        const std::shared_ptr<Graph> graph = at->second;
        Device* device = stream->device;
        return enqueue(stream, [graph, device] {
            for (const auto& node : graph->nodes) {
                if (device->fault == kSuccess) node();
            }
        });
    });
}

SPIKENORM_API int cuGraphGetNodes(void* graph, void**, std::size_t* count) {
    return context_call(__func__, [&](Device&) -> int {
        const auto at = state().graphs.find(graph);
        if (at == state().graphs.end()) return kInvalidHandle;
        *count = at->second->nodes.size();
        return kSuccess;
    });
}

SPIKENORM_API int cuGraphExecDestroy(void* executable) {
    return plain_call(__func__, [&](State& all) -> int {
        return all.executables.erase(executable) ? kSuccess : kInvalidHandle;
    });
}

SPIKENORM_API int cuGraphDestroy(void* graph) {
    return plain_call(__func__, [&](State& all) -> int { return all.graphs.erase(graph) ? kSuccess : kInvalidHandle; });
}

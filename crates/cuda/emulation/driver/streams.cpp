// Streams and events. Work runs as late as it may: when something waits for it, or when so much has piled
// up that a real queue would be full. What frees or reuses memory too early is thereby found out.
#include <utility>

#include "call.h"

namespace spikenorm::emulation::driver {

namespace {

// Beyond the first number the oldest work runs until the second is left.
constexpr std::size_t kQueueFull = 1024, kQueueLeft = 512;

Point end_of(const std::shared_ptr<Stream>& stream) { return {stream, stream->enqueued}; }

}  // namespace

int& thread_capture_mode() {
    thread_local int mode = kCaptureGlobal;
    return mode;
}

std::shared_ptr<Stream> find_stream(void* handle) {
    // 0 and 1 name the legacy stream, 2 the thread's own, which takes turns with it.
    if (reinterpret_cast<std::uintptr_t>(handle) <= 2) return current_device() ? current_device()->legacy : nullptr;
    const auto at = state().streams.find(handle);
    return at == state().streams.end() ? nullptr : at->second;
}

bool is_capturing(const Stream& stream) { return stream.capture != nullptr; }

int refuse_in_capture(Stream& stream) {
    stream.capture->invalidated = true;
    return kStreamCaptureUnsupported;
}

int refuse_unsafe_call() {
    if (thread_capture_mode() == kCaptureRelaxed) return kSuccess;
    int result = kSuccess;
    for (const auto& [handle, stream] : state().streams) {
        if (!is_capturing(*stream) || stream->capture->mode == kCaptureRelaxed) continue;
        const bool ours = stream->capture->thread == std::this_thread::get_id();
        const bool elsewhere = thread_capture_mode() == kCaptureGlobal && stream->capture->mode == kCaptureGlobal;
        if (ours || elsewhere) result = refuse_in_capture(*stream);
    }
    return result;
}

int enqueue(const std::shared_ptr<Stream>& stream, std::function<void()> run, std::vector<Point> after) {
    if (is_capturing(*stream)) {
        if (stream->capture->invalidated) return kStreamCaptureInvalidated;
        stream->capture->graph->nodes.push_back(std::move(run));
        return kSuccess;
    }
    Device& device = *stream->device;
    if (stream->blocking) after.push_back(end_of(device.legacy));
    if (stream == device.legacy) {
        for (const auto& [handle, other] : state().streams) {
            if (other->device == &device && other->blocking) after.push_back(end_of(other));
        }
    }
    stream->queue.push_back({std::move(run), std::move(after)});
    ++stream->enqueued;
    if (stream->queue.size() > kQueueFull) run_until(*stream, stream->enqueued - kQueueLeft);
    return kSuccess;
}

void run_until(Stream& stream, std::uint64_t position) {
    while (stream.executed < position) {
        const Work work = std::move(stream.queue.front());
        stream.queue.pop_front();
        for (const Point& point : work.after) run_until(*point.stream, point.position);
        ++stream.executed;
        // A context that has failed runs nothing more.
        if (stream.device->fault == kSuccess) work.run();
    }
}

void run_all(Device& device) {
    State& all = state();
    run_until(*device.legacy, device.legacy->enqueued);
    for (const auto& [handle, stream] : all.streams) {
        if (stream->device == &device) run_until(*stream, stream->enqueued);
    }
    for (const auto& stream : std::exchange(all.orphans, {})) {
        if (stream->device == &device) run_until(*stream, stream->enqueued);
        else all.orphans.push_back(stream);
    }
}

namespace {

template <class Body>
int event_call(const char* function, void* handle, Body body) {
    return context_call(function, [&](Device&) -> int {
        const auto at = state().events.find(handle);
        return at == state().events.end() ? kInvalidHandle : body(*at->second);
    });
}

int create_stream(const char* function, void** handle, unsigned flags) {
    return context_call(function, [&](Device& device) -> int {
        if (flags > kStreamNonBlocking) return kInvalidValue;
        auto stream = std::make_shared<Stream>();
        stream->device = &device;
        stream->blocking = flags != kStreamNonBlocking;
        *handle = stream.get();
        state().streams.emplace(*handle, std::move(stream));
        return kSuccess;
    });
}

// Whether the point has been reached. Asking makes the stream go on by one, so that who polls arrives.
bool reached(const Point& point) {
    if (point.stream == nullptr || point.stream->executed >= point.position) return true;
    run_until(*point.stream, point.stream->executed + 1);
    return point.stream->executed >= point.position;
}

}  // namespace
}  // namespace spikenorm::emulation::driver

using namespace spikenorm::emulation::driver;

SPIKENORM_API int cuStreamCreate(void** handle, unsigned flags) { return create_stream(__func__, handle, flags); }

SPIKENORM_API int cuStreamCreateWithPriority(void** handle, unsigned flags, int) {
    return create_stream(__func__, handle, flags);
}

SPIKENORM_API int cuStreamDestroy_v2(void* handle) {
    return plain_call(__func__, [&](State& all) -> int {
        const auto at = all.streams.find(handle);
        if (at == all.streams.end()) return kInvalidHandle;
        if (!at->second->queue.empty()) all.orphans.push_back(at->second);
        all.streams.erase(at);
        return kSuccess;
    });
}

SPIKENORM_API int cuStreamSynchronize(void* handle) {
    return stream_call(__func__, handle, [&](const std::shared_ptr<Stream>& stream) -> int {
        if (is_capturing(*stream)) return refuse_in_capture(*stream);
        run_until(*stream, stream->enqueued);
        after_waiting(*stream->device);
        return stream->device->fault;
    });
}

SPIKENORM_API int cuStreamQuery(void* handle) {
    return stream_call(__func__, handle, [&](const std::shared_ptr<Stream>& stream) -> int {
        if (is_capturing(*stream)) return refuse_in_capture(*stream);
        const bool done = reached(end_of(stream));
        return stream->device->fault != kSuccess ? stream->device->fault : done ? kSuccess : kNotReady;
    });
}

SPIKENORM_API int cuStreamGetCtx(void* handle, void** context) {
    return stream_call(__func__, handle, [&](const std::shared_ptr<Stream>& stream) -> int {
        *context = stream->device;
        return kSuccess;
    });
}

SPIKENORM_API int cuStreamWaitEvent(void* handle, void* event_handle, unsigned) {
    return stream_call(__func__, handle, [&](const std::shared_ptr<Stream>& stream) -> int {
        const auto at = state().events.find(event_handle);
        if (at == state().events.end()) return kInvalidHandle;
        const Event& event = *at->second;
        // A capture may depend on what it has captured, on nothing else; streams do not join one here.
        if (is_capturing(*stream) != event.captured) {
            if (is_capturing(*stream)) stream->capture->invalidated = true;
            return event.recorded.stream == nullptr && !event.captured ? kSuccess : kStreamCaptureIsolation;
        }
        if (event.captured || event.recorded.stream == nullptr) return kSuccess;
        return enqueue(stream, [] {}, {event.recorded});
    });
}

SPIKENORM_API int cuLaunchHostFunc(void* handle, void (*function)(void*), void* context) {
    return stream_call(__func__, handle, [&](const std::shared_ptr<Stream>& stream) -> int {
        return enqueue(stream, [function, context] { function(context); });
    });
}

// For the emulated libraries beside this one: `work(context)` runs when the stream gets there, and again
// at each replay of a graph that was capturing it. It must call nothing of the driver.
SPIKENORM_API int spikenorm_emulated_enqueue(void* stream, void (*work)(void*), void* context) {
    return cuLaunchHostFunc(stream, work, context);
}

// The same with what is to be called once nothing can run `work` again.
SPIKENORM_API int spikenorm_emulated_enqueue_owned(void* handle, void (*work)(void*), void* context,
                                                   void (*release)(void*)) {
    return stream_call(__func__, handle, [&](const std::shared_ptr<Stream>& stream) -> int {
        const std::shared_ptr<void> owned(context, release);
        return enqueue(stream, [work, owned] { work(owned.get()); });
    });
}

SPIKENORM_API int cuEventCreate(void** handle, unsigned flags) {
    return context_call(__func__, [&](Device& device) -> int {
        auto event = std::make_unique<Event>();
        event->device = &device;
        event->timed = (flags & kEventDisableTiming) == 0;
        *handle = event.get();
        state().events.emplace(*handle, std::move(event));
        return kSuccess;
    });
}

SPIKENORM_API int cuEventDestroy_v2(void* handle) {
    return plain_call(__func__, [&](State& all) -> int { return all.events.erase(handle) ? kSuccess : kInvalidHandle; });
}

SPIKENORM_API int cuEventRecord(void* handle, void* stream_handle) {
    return event_call(__func__, handle, [&](Event& event) -> int {
        const auto stream = find_stream(stream_handle);
        if (stream == nullptr || stream->device != event.device) return kInvalidHandle;
        event.captured = is_capturing(*stream);
        if (event.captured) return stream->capture->invalidated ? kStreamCaptureInvalidated : kSuccess;
        const auto time = std::make_shared<std::chrono::steady_clock::time_point>();
        if (const int code = enqueue(stream, [time] { *time = std::chrono::steady_clock::now(); })) return code;
        event.time = time;
        event.recorded = end_of(stream);
        return kSuccess;
    });
}

SPIKENORM_API int cuEventQuery(void* handle) {
    return event_call(__func__, handle, [&](Event& event) -> int {
        if (event.captured) return kCapturedEvent;
        const bool done = reached(event.recorded);
        return event.device->fault != kSuccess ? event.device->fault : done ? kSuccess : kNotReady;
    });
}

SPIKENORM_API int cuEventSynchronize(void* handle) {
    return event_call(__func__, handle, [&](Event& event) -> int {
        if (event.captured) return kCapturedEvent;
        if (event.recorded.stream != nullptr) run_until(*event.recorded.stream, event.recorded.position);
        after_waiting(*event.device);
        return event.device->fault;
    });
}

SPIKENORM_API int cuEventElapsedTime(float* milliseconds, void* start, void* end) {
    return event_call(__func__, start, [&](Event& first) -> int {
        const auto at = state().events.find(end);
        if (at == state().events.end()) return kInvalidHandle;
        Event& last = *at->second;
        if (!first.timed || !last.timed || !first.time || !last.time || first.captured || last.captured) return kInvalidHandle;
        for (const Event* event : {&first, &last}) {
            if (event->recorded.stream->executed < event->recorded.position) return kNotReady;
        }
        *milliseconds = std::chrono::duration<float, std::milli>(*last.time - *first.time).count();
        return kSuccess;
    });
}

SPIKENORM_API int cuEventElapsedTime_v2(float* milliseconds, void* start, void* end) {
    return cuEventElapsedTime(milliseconds, start, end);
}

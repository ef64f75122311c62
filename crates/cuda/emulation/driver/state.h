// What the emulated driver keeps: devices, their memory, streams of work that has not run yet, events,
// captures and graphs. One lock guards all of it (Call in call.h takes it).
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "../emulator.h"
#include "cuda_api.h"

namespace spikenorm::emulation::driver {

struct Stream;
struct Device;

// A place in a stream: reached when the stream has run that many pieces of work.
struct Point {
    std::shared_ptr<Stream> stream;
    std::uint64_t position = 0;
};

struct Work {
    std::function<void()> run;
    std::vector<Point> after;  // of other streams
};

struct Graph {
    std::vector<std::function<void()>> nodes;
};

struct Capture {
    std::shared_ptr<Graph> graph = std::make_shared<Graph>();
    int mode;
    std::thread::id thread;
    std::uint64_t id;
    bool invalidated = false;
};

struct Stream {
    Device* device;
    bool blocking;  // takes turns with the legacy stream
    std::deque<Work> queue;
    std::uint64_t enqueued = 0, executed = 0;
    std::unique_ptr<Capture> capture;
};

struct Event {
    Device* device;
    bool timed;
    Point recorded;
    bool captured = false;
    // Of the latest record that has been reached.
    std::shared_ptr<std::chrono::steady_clock::time_point> time;
};

struct Allocation {
    char* base;  // of the whole block, guards included
    std::size_t bytes;
    Device* device;
    bool pooled;
    bool freed = false;  // the call has been made; the stream may not have come to it
};

struct Module {
    Device* device;
    std::map<std::string, std::unique_ptr<struct Function>> functions;
};

struct Function {
    std::string name;
    const Kernel* kernel;
    Device* device;
    unsigned dynamic_shared;  // the most a launch may ask for
};

struct Device {
    int ordinal;
    std::shared_ptr<Stream> legacy;
    int fault = kSuccess;  // sticks to the context, as on a GPU
    // In bytes. Reserved: what the pool holds, used or not.
    std::size_t limit = 0, plain = 0, used = 0, reserved = 0, used_high = 0, reserved_high = 0;
    std::uint64_t release_threshold = 0;
    unsigned retained = 0;
};

struct State {
    std::recursive_mutex mutex;
    bool initialized = false;
    std::vector<std::unique_ptr<Device>> devices;
    std::map<void*, std::shared_ptr<Stream>> streams;
    // Destroyed with work in them: it still runs, when the context is waited for.
    std::vector<std::shared_ptr<Stream>> orphans;
    std::map<void*, std::unique_ptr<Event>> events;
    std::map<void*, std::shared_ptr<Graph>> graphs, executables;
    std::map<void*, std::unique_ptr<Module>> modules;
    std::map<Address, Allocation> live;
    // Memory whose free has been reached, kept for a while to find uses of it.
    std::map<Address, Allocation> freed;
    std::deque<Address> freed_order;
    std::size_t freed_bytes = 0;
    std::uint64_t launches = 0, captures = 0;
    std::map<std::string, std::uint64_t> calls;
};

State& state();
Device*& current_device();    // of the calling thread; null where no context is bound
int& thread_capture_mode();

// Numbers from the environment.
std::uint64_t setting(const char* name, std::uint64_t otherwise);

// As cuDriverGetVersion says it: 1000 * major + 10 * minor of the newest CUDA it serves.
int driver_version();

// One line on stderr.
void complain(const std::string& what);

// streams.cpp
std::shared_ptr<Stream> find_stream(void* handle);
// Puts work at the end of the stream, or into the graph it is capturing.
int enqueue(const std::shared_ptr<Stream>& stream, std::function<void()> run, std::vector<Point> after = {});
void run_until(Stream& stream, std::uint64_t position);
void run_all(Device& device);
bool is_capturing(const Stream& stream);
// For calls that a capture forbids: fails, and invalidates the captures in the way.
int refuse_in_capture(Stream& stream);
int refuse_unsafe_call();

// memory.cpp
// The live allocation that holds [address, address + bytes), or null.
const Allocation* find_live(Address address, std::size_t bytes);
const Allocation* find_freed(Address address);
void fault(Device& device, int code, const std::string& what);
// Returns what the pool holds unused beyond that many bytes.
void trim_pool(Device& device, std::size_t keep);
// What the driver does to the pool whenever something has been waited for.
void after_waiting(Device& device);

}  // namespace spikenorm::emulation::driver

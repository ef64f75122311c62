// The execution model: blocks of fibers, barriers, shuffles and shared memory.
//
// A fiber runs until it waits, so a schedule (ready.h) is the order in which waiting fibers go on.
// Asynchronous copies land at once under even schedules and at the last permitted moment under odd ones.
// Fresh shared memory is NaN.
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "emulator.h"
#include "execution.h"
#include "fiber.h"
#include "ready.h"

namespace spikenorm::emulation {
namespace {

struct Copy {
    void* to;
    const void* from;
    unsigned bytes;
};

struct Fiber {
    Context context;
    unsigned thread = 0, block = 0;
    double offered = 0.0, received = 0.0;
    unsigned mask = 0;
    std::vector<Copy> copies;
    bool done = false;
};

// Keeps the tops of the stacks from falling into the same few sets of the processor's cache.
constexpr std::size_t kStackShift = 1088;

struct Warp {
    unsigned waiting = 0;
};

struct BlockState {
    char* shared = nullptr;
    std::vector<unsigned> fibers;  // ids, by thread
    std::vector<Warp> warps;
    unsigned waiting = 0, done = 0;
};

std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

class Device {
  public:
    Device(const Kernel& kernel, const void* params, const Launch& launch)
        : kernel_(kernel), params_(params), launch_(launch), random_(launch.seed), blocks_(launch.grid),
          cluster_waiting_(launch.grid / launch.cluster), cluster_done_(launch.grid / launch.cluster),
          ready_(launch.schedule, std::size_t{launch.grid} * launch.threads, random_) {}
    ~Device() {
        for (BlockState& block : blocks_) std::free(block.shared);
    }

    bool run(std::string& message) {
        while (started_ < launch_.grid && started_ < launch_.resident) start_cluster();
        while (finished_ < launch_.grid) {
            if (ready_.empty()) {
                if (pausing_.empty() || !progress_) {
                    message = "deadlock: " + std::to_string(pausing_.size()) + " threads spin, the others wait";
                    return false;
                }
                progress_ = false;
                for (unsigned id : std::exchange(pausing_, {})) make_ready(id);
                continue;
            }
            current_ = next();
            switch_to(main_, fibers_[current_]->context);
            if (fibers_[current_]->done) retire(current_);
        }
        return true;
    }

    Fiber& current() { return *fibers_[current_]; }
    BlockState& block() { return blocks_[current().block]; }
    const Launch& launch() const { return launch_; }
    char* shared(unsigned block) { return blocks_[block].shared; }
    // Lets the next one go on, directly where it can: AddressSanitizer is told of switches to and from the
    // main stack only.
    void yield() {
        Context& from = current().context;
#if !defined(__SANITIZE_ADDRESS__)
        if (!ready_.empty()) {
            current_ = next();
            if (&current().context != &from) switch_to(from, current().context);
            return;
        }
#endif
        switch_to(from, main_);
    }

    void wait_for_block() {
        progress_ = true;
        BlockState& b = block();
        if (++b.waiting < launch_.threads) return yield();
        b.waiting = 0;
        release(b.fibers.data(), launch_.threads, current_);
    }
    void wait_for_cluster() {
        progress_ = true;
        const unsigned cluster = current().block / launch_.cluster;
        if (++cluster_waiting_[cluster] < launch_.threads * launch_.cluster) return yield();
        cluster_waiting_[cluster] = 0;
        for (unsigned i = 0; i < launch_.cluster; ++i) {
            const BlockState& b = blocks_[cluster * launch_.cluster + i];
            make_all_ready(b.fibers.data(), launch_.threads, current_);
        }
        make_ready(current_);
        yield();
    }
    double exchange(double value, unsigned mask) {
        progress_ = true;
        Fiber& mine = current();
        mine.offered = value;
        mine.mask = mask;
        const unsigned warp = mine.thread / 32;
        BlockState& b = block();
        if (++b.warps[warp].waiting < 32) {
            yield();
            return mine.received;
        }
        b.warps[warp].waiting = 0;
        const unsigned* lanes = b.fibers.data() + warp * 32;
        for (unsigned lane = 0; lane < 32; ++lane) {
            Fiber& fiber = *fibers_[lanes[lane]];
            fiber.received = fibers_[lanes[(lane ^ fiber.mask) % 32]]->offered;
        }
        release(lanes, 32, current_);
        return mine.received;
    }
    void pause() {
        pausing_.push_back(current_);
        yield();
    }
    void copy(Copy one) {
        if (launch_.schedule % 2 == 0) {
            std::memcpy(one.to, one.from, one.bytes);
        } else {
            current().copies.push_back(one);
        }
    }
    void work() {
        arrive(main_);
        kernel_.run(params_);
        for (const Copy& late : current().copies) std::memcpy(late.to, late.from, late.bytes);
        current().done = true;
        progress_ = true;
        switch_to(current().context, main_, true);
    }

    static Device* running;

  private:
    unsigned next() {
        const std::size_t index = ready_.take();
        return blocks_[index / launch_.threads].fibers[index % launch_.threads];
    }
    void start_cluster() {
        for (unsigned i = 0; i < launch_.cluster; ++i) start_block(started_++);
    }
    void start_block(unsigned index) {
        BlockState& b = blocks_[index];
        // Exactly as large as asked, up to alignment, so that AddressSanitizer sees a step outside.
        if (posix_memalign(reinterpret_cast<void**>(&b.shared), 128, std::max(launch_.shared_bytes, 16u)) != 0) std::abort();
        std::memset(b.shared, 0xff, std::max(launch_.shared_bytes, 16u));
        b.warps.resize(launch_.threads / 32);
        for (unsigned thread = 0; thread < launch_.threads; ++thread) {
            unsigned id;
            if (free_.empty()) {
                id = static_cast<unsigned>(fibers_.size());
                fibers_.push_back(std::make_unique<Fiber>());
                if (stacks_.size() <= id) stacks_.push_back(std::make_unique<char[]>(kStackBytes + kStackShift));
            } else {
                id = free_.back();
                free_.pop_back();
                *fibers_[id] = Fiber{};
            }
            fibers_[id]->thread = thread;
            fibers_[id]->block = index;
            make_context(fibers_[id]->context, stacks_[id].get(), [] { running->work(); });
            b.fibers.push_back(id);
            make_ready(id);
        }
    }
    void retire(unsigned id) {
        const unsigned block = fibers_[id]->block;
        free_.push_back(id);
        if (++blocks_[block].done < launch_.threads) return;
        ++finished_;
        // The shared memory of a block that has ended is gone, also for its cluster.
        std::memset(blocks_[block].shared, 0xff, std::max(launch_.shared_bytes, 16u));
        const unsigned cluster = block / launch_.cluster;
        if (++cluster_done_[cluster] < launch_.cluster) return;
        for (unsigned i = 0; i < launch_.cluster; ++i) {
            std::free(std::exchange(blocks_[cluster * launch_.cluster + i].shared, nullptr));
        }
        if (started_ < launch_.grid) start_cluster();
    }
    // Lets those go on that have waited for the running one.
    void release(const unsigned* ids, unsigned count, unsigned but) {
        make_all_ready(ids, count, but);
        // The one that came last has no precedence either.
        make_ready(but);
        yield();
    }
    void make_all_ready(const unsigned* ids, unsigned count, unsigned but) {
        for (unsigned i = 0; i < count; ++i) {
            if (ids[i] != but) make_ready(ids[i]);
        }
    }
    void make_ready(unsigned id) {
        const Fiber& fiber = *fibers_[id];
        ready_.add(std::size_t{fiber.block} * launch_.threads + fiber.thread);
    }

    const Kernel kernel_;
    const void* params_;
    const Launch launch_;
    std::mt19937 random_;
    std::vector<BlockState> blocks_;
    std::vector<unsigned> cluster_waiting_, cluster_done_;
    std::vector<std::unique_ptr<Fiber>> fibers_;
    std::vector<unsigned> free_, pausing_;
    Ready ready_;
    Context main_;
    unsigned current_ = 0, started_ = 0, finished_ = 0;
    bool progress_ = true;
    // Kept between launches: a stack is large and every fiber needs one.
    static std::vector<std::unique_ptr<char[]>> stacks_;
};

Device* Device::running = nullptr;
std::vector<std::unique_ptr<char[]>> Device::stacks_;

}  // namespace

Registration::Registration(const char* name, void (*kernel)(const void*), unsigned most_threads, unsigned params_bytes) {
    kernels()[name] = Kernel{kernel, most_threads, params_bytes};
}

const Kernel* find_kernel(const char* name) {
    const auto at = kernels().find(name);
    return at == kernels().end() ? nullptr : &at->second;
}

bool run_kernel(const Kernel& kernel, const void* params, const Launch& launch, std::string& message) {
    if (launch.threads > kernel.most_threads || launch.threads % 32 != 0 || launch.threads == 0) {
        message = "threads";
    } else if (launch.cluster == 0 || launch.grid % launch.cluster != 0) {
        message = "grid is no multiple of the cluster";
    } else {
        Device device(kernel, params, launch);
        Device::running = &device;
        device.run(message);
        Device::running = nullptr;
    }
    return message.empty();
}

unsigned thread_index() { return Device::running->current().thread; }
unsigned block_index() { return Device::running->current().block; }
unsigned thread_count() { return Device::running->launch().threads; }
unsigned block_count() { return Device::running->launch().grid; }
char* own_shared_memory() { return Device::running->block().shared; }
char* shared_memory(unsigned rank) {
    Device& device = *Device::running;
    const unsigned cluster = device.launch().cluster;
    return device.shared(device.current().block / cluster * cluster + rank);
}
void wait_for_block() { Device::running->wait_for_block(); }
void wait_for_cluster() { Device::running->wait_for_cluster(); }
double exchange(double value, unsigned mask) { return Device::running->exchange(value, mask); }
void copy(void* to, const void* from, unsigned bytes) { Device::running->copy({to, from, bytes}); }
void finish_copies() {
    for (const Copy& one : std::exchange(Device::running->current().copies, {})) std::memcpy(one.to, one.from, one.bytes);
}
void pause() { Device::running->pause(); }

std::uint32_t half_to_float_bits(std::uint16_t bits) {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
    const int exponent = bits >> 10 & 31;
    const std::uint32_t fraction = bits & 1023u;
    if (exponent == 31) return sign | 0x7f800000u | fraction << 13;
    const float value = std::ldexp(static_cast<float>(exponent ? fraction | 1024u : fraction), (exponent ? exponent : 1) - 25);
    return sign | float_to_bits(value);
}

std::uint16_t float_to_half_bits(float value) {
    const std::uint16_t sign = static_cast<std::uint16_t>(float_to_bits(value) >> 16 & 0x8000u);
    const float size = std::fabs(value);
    if (std::isnan(value)) return sign | 0x7e00u;
    if (size >= 65520.0f) return sign | 0x7c00u;
    int exponent;
    std::frexp(size, &exponent);
    const int unit = std::max(exponent, -13) - 11;  // exponent of one unit in the last place
    const auto units = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(size, -unit)));
    if (units == 0) return sign;
    // A value that rounds up to the next power of two carries into the exponent by itself.
    return static_cast<std::uint16_t>(sign + (static_cast<std::uint32_t>(unit + 24) << 10) + units);
}

}  // namespace spikenorm::emulation

// 0 when the launch ran to its end; else what stopped it is in `message`.
extern "C" int spikenorm_emulate(const char* name, const void* params, const spikenorm::emulation::Launch* launch,
                                 char* message, std::size_t size) {
    using namespace spikenorm::emulation;
    const Kernel* kernel = find_kernel(name);
    std::string why = "no kernel of that name";
    if (kernel != nullptr) {
        why.clear();
        if (run_kernel(*kernel, params, *launch, why)) return 0;
    }
    std::snprintf(message, size, "%s: %s", name, why.c_str());
    return 1;
}

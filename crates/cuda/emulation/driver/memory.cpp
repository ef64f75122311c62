// Device memory, which is host memory between guards. What has not been written is 0xff, as is what has
// been freed; freed blocks are kept for a while, so that uses of them are found.
#include <cstdlib>
#include <cstring>

#include "call.h"

namespace spikenorm::emulation::driver {

namespace {

constexpr std::size_t kAlignment = 256;  // what the driver promises
constexpr std::size_t kGuard = 256;
constexpr std::size_t kKeptBytes = 64 << 20;
constexpr char kUnwritten = static_cast<char>(0xff);

bool is_unwritten(const char* at, std::size_t bytes) {
    return bytes == 0 || (at[0] == kUnwritten && std::memcmp(at, at + 1, bytes - 1) == 0);
}

std::size_t rounded(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

char* start(const Allocation& allocation) { return allocation.base + kGuard; }

// The allocation of `all` that holds the address.
template <class Map>
const Allocation* holding(const Map& all, Address address) {
    auto at = all.upper_bound(address);
    if (at == all.begin()) return nullptr;
    --at;
    return address < at->first + rounded(at->second.bytes) ? &at->second : nullptr;
}

std::string name_of(const Allocation& allocation) {
    return "an allocation of " + std::to_string(allocation.bytes) + " bytes on device " +
           std::to_string(allocation.device->ordinal);
}

void check_guards(const Allocation& allocation) {
    const std::size_t after = rounded(allocation.bytes) - allocation.bytes + kGuard;
    if (!is_unwritten(allocation.base, kGuard)) {
        fault(*allocation.device, kIllegalAddress, "something wrote before " + name_of(allocation));
    } else if (!is_unwritten(start(allocation) + allocation.bytes, after)) {
        fault(*allocation.device, kIllegalAddress, "something wrote past the end of " + name_of(allocation));
    }
}

void forget_oldest(State& all) {
    const Address address = all.freed_order.front();
    all.freed_order.pop_front();
    const Allocation allocation = all.freed.at(address);
    all.freed.erase(address);
    all.freed_bytes -= allocation.bytes;
    if (!is_unwritten(start(allocation), allocation.bytes)) {
        fault(*allocation.device, kIllegalAddress, "something wrote to " + name_of(allocation) + " after it was freed");
    }
    std::free(allocation.base);
}

Address allocate(Device& device, std::size_t bytes, bool pooled) {
    State& all = state();
    void* base = nullptr;
    if (posix_memalign(&base, kAlignment, rounded(bytes) + 2 * kGuard) != 0) return 0;
    Allocation allocation{static_cast<char*>(base), bytes, &device, pooled};
    std::memset(allocation.base, kUnwritten, kGuard);
    std::memset(start(allocation) + bytes, kUnwritten, rounded(bytes) - bytes + kGuard);
    const Address address = reinterpret_cast<Address>(start(allocation));
    all.live.emplace(address, allocation);
    return address;
}

// What happens when a stream comes to a free.
void release(Address address, Device& device) {
    State& all = state();
    const auto at = all.live.find(address);
    if (at == all.live.end()) return fault(device, kIllegalAddress, "a graph frees the same memory twice");
    const Allocation allocation = at->second;
    check_guards(allocation);
    all.live.erase(at);
    std::memset(start(allocation), kUnwritten, allocation.bytes);
    all.freed.emplace(address, allocation);
    all.freed_order.push_back(address);
    all.freed_bytes += allocation.bytes;
    while (all.freed_bytes > kKeptBytes) forget_oldest(all);
}

bool fits(const Device& device, std::size_t more) { return device.plain + device.reserved + more <= device.limit; }

// Pool memory that is held but not used serves the next allocation, whatever its size.
bool reserve_from_pool(Device& device, std::size_t bytes) {
    const std::size_t spare = device.reserved - device.used;
    const std::size_t more = bytes > spare ? bytes - spare : 0;
    if (!fits(device, more)) return false;
    device.reserved += more;
    device.used += bytes;
    device.used_high = std::max(device.used_high, device.used);
    device.reserved_high = std::max(device.reserved_high, device.reserved);
    return true;
}

void* pointer(Address address) { return reinterpret_cast<void*>(address); }

// Work that touches memory, checked again when the stream comes to it.
int enqueue_checked(const std::shared_ptr<Stream>& stream, const char* what, std::vector<std::pair<Address, std::size_t>> ranges,
                    std::function<void()> run) {
    for (const auto& [address, bytes] : ranges) {
        const Allocation* found = find_live(address, bytes);
        if (found == nullptr || found->freed) return kInvalidValue;
    }
    return enqueue(stream, [=, device = stream->device] {
        for (const auto& [address, bytes] : ranges) {
            if (find_live(address, bytes) == nullptr) {
                return fault(*device, kIllegalAddress, std::string(what) + " touches memory that has been freed");
            }
        }
        run();
    });
}

}  // namespace

const Allocation* find_live(Address address, std::size_t bytes) {
    const Allocation* found = holding(state().live, address);
    if (found == nullptr) return nullptr;
    const std::size_t offset = address - reinterpret_cast<Address>(start(*found));
    return offset + bytes <= found->bytes ? found : nullptr;
}

const Allocation* find_freed(Address address) { return holding(state().freed, address); }

void fault(Device& device, int code, const std::string& what) {
    complain(what);
    if (device.fault == kSuccess) device.fault = code;
}

void after_waiting(Device& device) { trim_pool(device, device.release_threshold); }

void trim_pool(Device& device, std::size_t keep) {
    device.reserved = std::max(device.used, std::min(device.reserved, keep));
}

}  // namespace spikenorm::emulation::driver

using namespace spikenorm::emulation::driver;

SPIKENORM_API int cuMemAlloc_v2(Address* address, std::size_t bytes) {
    return context_call(__func__, [&](Device& device) -> int {
        if (const int code = refuse_unsafe_call()) return code;
        if (bytes == 0) return kInvalidValue;
        if (!fits(device, bytes)) return kOutOfMemory;
        *address = allocate(device, bytes, false);
        if (*address == 0) return kOutOfMemory;
        device.plain += bytes;
        std::memset(pointer(*address), kUnwritten, bytes);
        return kSuccess;
    });
}

SPIKENORM_API int cuMemFree_v2(Address address) {
    return context_call(__func__, [&](Device&) -> int {
        if (address == 0) return kSuccess;
        if (const int code = refuse_unsafe_call()) return code;
        const auto at = state().live.find(address);
        if (at == state().live.end() || at->second.freed) return kInvalidValue;
        Device& owner = *at->second.device;
        // Waits for all that may use it, as the real one does.
        run_all(owner);
        (at->second.pooled ? owner.used : owner.plain) -= at->second.bytes;
        release(address, owner);
        return owner.fault;
    });
}

SPIKENORM_API int cuMemAllocAsync(Address* address, std::size_t bytes, void* handle) {
    return stream_call(__func__, handle, [&](const std::shared_ptr<Stream>& stream) -> int {
        if (bytes == 0) return kInvalidValue;
        // A real driver makes an allocation node of it, whose memory belongs to the graph.
        if (is_capturing(*stream)) return refuse_in_capture(*stream);
        Device& device = *stream->device;
        if (!reserve_from_pool(device, bytes)) return kOutOfMemory;
        *address = allocate(device, bytes, true);
        if (*address == 0) return kOutOfMemory;
        // It holds nothing before the stream comes here, whatever another stream puts there.
        return enqueue(stream, [at = pointer(*address), bytes] { std::memset(at, kUnwritten, bytes); });
    });
}

SPIKENORM_API int cuMemFreeAsync(Address address, void* handle) {
    return stream_call(__func__, handle, [&](const std::shared_ptr<Stream>& stream) -> int {
        const auto at = state().live.find(address);
        if (at == state().live.end() || at->second.freed) return kInvalidValue;
        // A captured free is a node: the memory goes when the graph runs.
        const auto free = [address, device = stream->device] { release(address, *device); };
        if (is_capturing(*stream)) return enqueue(stream, free);
        at->second.freed = true;
        Device& owner = *at->second.device;
        // Later allocations of the same stream may have it at once.
        (at->second.pooled ? owner.used : owner.plain) -= at->second.bytes;
        return enqueue(stream, free);
    });
}

SPIKENORM_API int cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
    return context_call(__func__, [&](Device& device) -> int {
        *free = device.limit - device.plain - device.reserved;
        *total = device.limit;
        return kSuccess;
    });
}

SPIKENORM_API int cuMemcpyHtoDAsync_v2(Address to, const void* from, std::size_t bytes, void* handle) {
    return stream_call(__func__, handle, [&](const std::shared_ptr<Stream>& stream) -> int {
        if (is_capturing(*stream)) return refuse_in_capture(*stream);
        // Read late, as a device that sees the host's pages does; others stage them before the call returns.
        return enqueue_checked(stream, "a copy to the device", {{to, bytes}}, [=] { std::memcpy(pointer(to), from, bytes); });
    });
}

SPIKENORM_API int cuMemcpyDtoHAsync_v2(void* to, Address from, std::size_t bytes, void* handle) {
    return stream_call(__func__, handle, [&](const std::shared_ptr<Stream>& stream) -> int {
        if (is_capturing(*stream)) return refuse_in_capture(*stream);
        return enqueue_checked(stream, "a copy from the device", {{from, bytes}}, [=] { std::memcpy(to, pointer(from), bytes); });
    });
}

SPIKENORM_API int cuMemcpyDtoDAsync_v2(Address to, Address from, std::size_t bytes, void* handle) {
    return stream_call(__func__, handle, [&](const std::shared_ptr<Stream>& stream) -> int {
        const Allocation *target = find_live(to, bytes), *source = find_live(from, bytes);
        if (target != nullptr && source != nullptr && target->device != source->device) return kInvalidValue;
        return enqueue_checked(stream, "a copy", {{to, bytes}, {from, bytes}}, [=] { std::memmove(pointer(to), pointer(from), bytes); });
    });
}

SPIKENORM_API int cuMemcpyPeerAsync(Address to, void* to_context, Address from, void* from_context, std::size_t bytes,
                                    void* handle) {
    return stream_call(__func__, handle, [&](const std::shared_ptr<Stream>& stream) -> int {
        const Allocation *target = find_live(to, bytes), *source = find_live(from, bytes);
        if (target == nullptr || source == nullptr) return kInvalidValue;
        if (target->device != to_context || source->device != from_context) return kInvalidValue;
        return enqueue_checked(stream, "a copy between devices", {{to, bytes}, {from, bytes}},
                               [=] { std::memcpy(pointer(to), pointer(from), bytes); });
    });
}

SPIKENORM_API int cuMemsetD8Async(Address to, unsigned char value, std::size_t bytes, void* handle) {
    return stream_call(__func__, handle, [&](const std::shared_ptr<Stream>& stream) -> int {
        return enqueue_checked(stream, "a memset", {{to, bytes}}, [=] { std::memset(pointer(to), value, bytes); });
    });
}

SPIKENORM_API int cuMemsetD32Async(Address to, unsigned value, std::size_t words, void* handle) {
    return stream_call(__func__, handle, [&](const std::shared_ptr<Stream>& stream) -> int {
        return enqueue_checked(stream, "a memset", {{to, 4 * words}}, [=] {
            for (std::size_t i = 0; i < words; ++i) std::memcpy(static_cast<char*>(pointer(to)) + 4 * i, &value, 4);
        });
    });
}

SPIKENORM_API int cuPointerGetAttribute(void* data, int attribute, Address address) {
    return plain_call(__func__, [&](State&) -> int {
        const Allocation* found = find_live(address, 1);
        if (found == nullptr || found->freed) return kInvalidValue;
        switch (attribute) {
            case kPointerContext: *static_cast<void**>(data) = found->device; return kSuccess;
            case kPointerMemoryType: *static_cast<unsigned*>(data) = kMemoryTypeDevice; return kSuccess;
            case kPointerDevicePointer: *static_cast<Address*>(data) = address; return kSuccess;
            case kPointerDeviceOrdinal: *static_cast<int*>(data) = found->device->ordinal; return kSuccess;
            case kPointerRangeStart: *static_cast<void**>(data) = start(*found); return kSuccess;
            case kPointerRangeSize: *static_cast<std::size_t*>(data) = found->bytes; return kSuccess;
            default: return kInvalidValue;
        }
    });
}

// A device has one pool, and its handle is the device.
SPIKENORM_API int cuDeviceGetDefaultMemPool(void** pool, int ordinal) {
    return plain_call(__func__, [&](State& all) -> int {
        if (ordinal < 0 || static_cast<std::size_t>(ordinal) >= all.devices.size()) return kInvalidDevice;
        *pool = all.devices[ordinal].get();
        return kSuccess;
    });
}

SPIKENORM_API int cuMemPoolSetAttribute(void* pool, int attribute, void* value) {
    return plain_call(__func__, [&](State&) -> int {
        Device& device = *static_cast<Device*>(pool);
        const std::uint64_t number = *static_cast<std::uint64_t*>(value);
        switch (attribute) {
            case kPoolReleaseThreshold: device.release_threshold = number; return kSuccess;
            case kPoolReservedHigh:
            case kPoolUsedHigh:
                if (number != 0) return kInvalidValue;
                (attribute == kPoolUsedHigh ? device.used_high : device.reserved_high) =
                    attribute == kPoolUsedHigh ? device.used : device.reserved;
                return kSuccess;
            default: return kInvalidValue;
        }
    });
}

SPIKENORM_API int cuMemPoolGetAttribute(void* pool, int attribute, void* value) {
    return plain_call(__func__, [&](State&) -> int {
        const Device& device = *static_cast<Device*>(pool);
        std::uint64_t& number = *static_cast<std::uint64_t*>(value);
        switch (attribute) {
            case kPoolReleaseThreshold: number = device.release_threshold; return kSuccess;
            case kPoolReservedCurrent: number = device.reserved; return kSuccess;
            case kPoolReservedHigh: number = device.reserved_high; return kSuccess;
            case kPoolUsedCurrent: number = device.used; return kSuccess;
            case kPoolUsedHigh: number = device.used_high; return kSuccess;
            default: return kInvalidValue;
        }
    });
}

SPIKENORM_API int cuMemPoolTrimTo(void* pool, std::size_t keep) {
    return plain_call(__func__, [&](State&) -> int {
        trim_pool(*static_cast<Device*>(pool), keep);
        return kSuccess;
    });
}

// Allocations that nobody has freed yet.
SPIKENORM_API std::uint64_t spikenorm_emulated_live_allocations() {
    std::lock_guard<std::recursive_mutex> lock(state().mutex);
    std::uint64_t count = 0;
    for (const auto& [address, allocation] : state().live) count += allocation.freed ? 0 : 1;
    return count;
}

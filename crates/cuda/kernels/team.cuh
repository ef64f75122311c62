// How the blocks of a team put together what each has found, and how the last of all blocks is known.
#pragma once

#include "tile.cuh"

namespace spikenorm {

// Where member `member` of the team leaves the pair of cell (step, channel) in global memory.
SPIKENORM_DEVICE double* slot(const NormParams& p, unsigned step, unsigned channel, unsigned member) {
    const unsigned long long cell = static_cast<unsigned long long>(p.first_step + step) * p.channels + channel;
    return p.slots + 2 * (cell * p.team + member);
}

// Sense-reversing barrier: the members' additions flip the top bit together once all have come, so
// the counter never needs to be cleared.
SPIKENORM_DEVICE void cooperative_sync(unsigned* barrier, unsigned member, unsigned team) {
    block_sync();
    if (thread_index() == 0) {
        const unsigned top = 0x80000000u;
        device_fence();
        const unsigned before = atomic_add(barrier, member == 0 ? top - (team - 1) : 1u);
        while (((before ^ load_flag(barrier)) & top) == 0) spin();
        device_fence();
    }
    block_sync();
}

// Makes results() of every member visible to the team.
template <typename T>
SPIKENORM_DEVICE void publish(const Block<T>& b) {
    const NormParams& p = b.p;
    if (p.sync == SPIKENORM_SYNC_COOPERATIVE || p.phase == SPIKENORM_PHASE_SUMS) {
        for_each_cell(b, [&](unsigned t, unsigned c) {
            const Pair mine = b.results()[t * p.tile_channels + c];
            double* at = slot(p, t, b.channel + c, b.member);
            at[0] = mine.a;
            at[1] = mine.b;
        });
    }
    if (p.phase == SPIKENORM_PHASE_SUMS) return;
    if (p.sync == SPIKENORM_SYNC_CLUSTER) {
        cluster_sync();
    } else if (p.sync == SPIKENORM_SYNC_COOPERATIVE) {
        cooperative_sync(p.barriers + 1 + b.team, b.member, p.team);
    } else {
        block_sync();
    }
}

// Keeps a block's shared memory alive until its peers have read it.
template <typename T>
SPIKENORM_DEVICE void release(const Block<T>& b) {
    if (b.p.phase == SPIKENORM_PHASE_BOTH && b.p.sync == SPIKENORM_SYNC_CLUSTER) cluster_sync();
}

template <typename T>
SPIKENORM_DEVICE Pair pair_of_member(const Block<T>& b, unsigned member, unsigned t, unsigned c) {
    const unsigned cell = t * b.p.tile_channels + c;
    if (b.p.sync == SPIKENORM_SYNC_COOPERATIVE) {
        const double* at = slot(b.p, t, b.channel + c, member);
        return {load_fresh(at), load_fresh(at + 1)};
    }
    if (b.p.sync == SPIKENORM_SYNC_CLUSTER) return cluster_peer(b.results(), member)[cell];
    return b.results()[cell];
}

// What is merged over members: moments in forward, plain sums in backward.
struct MergeMoments {
    using State = Moments;
    static SPIKENORM_DEVICE State of(double count, Pair pair) { return {count, pair.a, pair.b}; }
    static SPIKENORM_DEVICE State shuffled(const State& s, unsigned mask) {
        return {shuffle_xor(s.count, mask), shuffle_xor(s.mean, mask), shuffle_xor(s.m2, mask)};
    }
    static SPIKENORM_DEVICE Pair pair(const State& s) { return {s.mean, s.m2}; }
};

struct MergeSums {
    struct State {
        Pair sums;
        SPIKENORM_DEVICE void merge(const State& other) {
            sums.a += other.sums.a;
            sums.b += other.sums.b;
        }
    };
    static SPIKENORM_DEVICE State of(double, Pair pair) { return {pair}; }
    static SPIKENORM_DEVICE State shuffled(const State& s, unsigned mask) {
        return {{shuffle_xor(s.sums.a, mask), shuffle_xor(s.sums.b, mask)}};
    }
    static SPIKENORM_DEVICE Pair pair(const State& s) { return s.sums; }
};

// merged() of every cell from all members, in the same order in every block: up to 32 lanes share a
// cell, each takes every 32nd member, then they fold as a tree.
template <class Merge, typename T>
SPIKENORM_DEVICE void merge_members(const Block<T>& b) {
    using State = typename Merge::State;
    const NormParams& p = b.p;
    unsigned width = 1;
    while (width < p.team && width < 32) width *= 2;
    const unsigned cells = p.steps * b.live;
    for (unsigned base = b.warp * 32; base < cells * width; base += b.warps * 32) {
        const unsigned index = (base + b.lane) / width;
        const bool valid = index < cells;
        const unsigned t = valid ? index / b.live : 0;
        const unsigned c = valid ? index % b.live : 0;
        State state = Merge::of(0.0, Pair{0.0, 0.0});
        for (unsigned member = b.lane % width; member < p.team; member += width) {
            const double count = values_before(p, first_row(p, member + 1)) - values_before(p, first_row(p, member));
            state.merge(Merge::of(count, pair_of_member(b, member, t, c)));
        }
        for (unsigned mask = 1; mask < width; mask *= 2) state.merge(Merge::shuffled(state, mask));
        if (valid && b.lane % width == 0) b.merged()[t * p.tile_channels + c] = Merge::pair(state);
    }
}

// True in every thread of the last of `blocks` blocks to come here, which then sees what the others
// have written. `flag` is a word of shared memory.
SPIKENORM_DEVICE bool is_last_block(unsigned* ticket, unsigned blocks, unsigned* flag) {
    block_sync();
    if (thread_index() == 0) {
        device_fence();
        *flag = atomic_increment(ticket, blocks - 1) == blocks - 1;
        device_fence();
    }
    block_sync();
    return *flag != 0;
}

}  // namespace spikenorm

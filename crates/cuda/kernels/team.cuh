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

// Keeps what a block has found until its peers have read it.
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

// Calls work(t, c, lanes' first member, members apart, store) with up to 32 lanes sharing a cell; every lane of a warp
// calls, and `store` tells which one of a cell is to write.
template <typename T, class Work>
SPIKENORM_DEVICE void for_each_shared_cell(const Block<T>& b, Work work) {
    const NormParams& p = b.p;
    unsigned shift = 0;
    while ((1u << shift) < p.team && shift < 5) shift += 1;
    const unsigned width = 1u << shift;
    const unsigned cells = p.steps * b.live;
    const float per_channel = reciprocal_of(static_cast<float>(b.live));
#pragma unroll 1
    for (unsigned base = b.warp * 32; base < cells << shift; base += b.warps * 32) {
        const unsigned index = (base + b.lane) >> shift;
        const unsigned cell = smaller(index, cells - 1);
        const unsigned t = quotient(cell, per_channel);
        const unsigned member = b.lane & (width - 1);
        work(t, cell - t * b.live, member, width, index < cells && member == 0);
    }
}

// Sum over `width` neighbouring lanes, the same bits in each.
SPIKENORM_DEVICE double sum_over(double value, unsigned width) {
    for (unsigned mask = 1; mask < width; mask *= 2) value += shuffle_xor(value, mask);
    return value;
}

// merged() of every cell from all members, in the same order in every block. Here from moments: the mean of means,
// then squared deviations from it.
template <typename T>
SPIKENORM_DEVICE void merge_moments(const Block<T>& b) {
    const NormParams& p = b.p;
    for_each_shared_cell(b, [&](unsigned t, unsigned c, unsigned first, unsigned width, bool store) {
        const auto count = [&](unsigned member) { return values_between(p, first_row(p, member), first_row(p, member + 1)); };
        double sum = 0.0;
#pragma unroll 1
        for (unsigned member = first; member < p.team; member += width) sum += count(member) * pair_of_member(b, member, t, c).a;
        const double mean = sum_over(sum, width) * p.per_cell;
        double m2 = 0.0;
#pragma unroll 1
        for (unsigned member = first; member < p.team; member += width) {
            const Pair pair = pair_of_member(b, member, t, c);
            const double off = pair.a - mean;
            m2 += pair.b + count(member) * off * off;
        }
        m2 = sum_over(m2, width);
        if (store) b.merged()[t * p.tile_channels + c] = Pair{mean, m2};
    });
}

// The same from plain sums.
template <typename T>
SPIKENORM_DEVICE void merge_sums(const Block<T>& b) {
    const NormParams& p = b.p;
    for_each_shared_cell(b, [&](unsigned t, unsigned c, unsigned first, unsigned width, bool store) {
        Pair sums{0.0, 0.0};
#pragma unroll 1
        for (unsigned member = first; member < p.team; member += width) {
            const Pair pair = pair_of_member(b, member, t, c);
            sums.a += pair.a;
            sums.b += pair.b;
        }
        sums = {sum_over(sums.a, width), sum_over(sums.b, width)};
        if (store) b.merged()[t * p.tile_channels + c] = sums;
    });
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

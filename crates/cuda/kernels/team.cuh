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
        block_sync();
        for_each_cell(b, [&](unsigned t, unsigned c) {
            const Pair mine = b.results()[t * p.tile_channels + c];
            double* at = slot(p, t, b.channel + c, b.member);
            at[0] = mine.a;
            at[1] = mine.b;
        });
    }
    if (p.phase == SPIKENORM_PHASE_SUMS) return;
    if (p.sync == SPIKENORM_SYNC_CLUSTER) {
        cluster_arrive();
        cluster_wait();
    } else if (p.sync == SPIKENORM_SYNC_COOPERATIVE) {
        cooperative_sync(p.barriers + 1 + b.team, b.member, p.team);
    } else {
        block_sync();
    }
}

// Says that this thread has read what its peers have found, and waits until they have read what it has.
template <typename T>
SPIKENORM_DEVICE void part_with(const Block<T>& b) {
    if (b.p.sync == SPIKENORM_SYNC_CLUSTER) cluster_arrive();
}
template <typename T>
SPIKENORM_DEVICE void release(const Block<T>& b) {
    if (b.p.phase == SPIKENORM_PHASE_BOTH && b.p.sync == SPIKENORM_SYNC_CLUSTER) cluster_wait();
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

// merged() of every cell from all members, in the same order in every block. Here from moments: the mean of means,
// then squared deviations from it.
template <typename T>
SPIKENORM_DEVICE void merge_moments(const Block<T>& b) {
    const NormParams& p = b.p;
    for_each_shared_cell(b, p.team, [&](unsigned t, unsigned c, unsigned first, unsigned width, bool store) {
        const auto moments = [&](unsigned member) {
            const Pair pair = pair_of_member(b, member, t, c);
            return Moments{values_between(p, first_row(p, member), first_row(p, member + 1)), pair.a, pair.b};
        };
        // A lane has one member, but in large teams.
        const Moments own = first < p.team ? moments(first) : Moments{0.0, 0.0, 0.0};
        double sum = own.count * own.mean;
#pragma unroll 1
        for (unsigned member = first + width; member < p.team; member += width) {
            const Moments other = moments(member);
            sum += other.count * other.mean;
        }
        const double mean = sum_over(sum, width) * p.per_cell;
        double m2 = own.m2 + own.count * (own.mean - mean) * (own.mean - mean);
#pragma unroll 1
        for (unsigned member = first + width; member < p.team; member += width) {
            const Moments other = moments(member);
            m2 += other.m2 + other.count * (other.mean - mean) * (other.mean - mean);
        }
        m2 = sum_over(m2, width);
        if (store) b.merged()[t * p.tile_channels + c] = Pair{mean, m2};
    });
}

// The same from plain sums.
template <typename T>
SPIKENORM_DEVICE void merge_sums(const Block<T>& b) {
    const NormParams& p = b.p;
    for_each_shared_cell(b, p.team, [&](unsigned t, unsigned c, unsigned first, unsigned width, bool store) {
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

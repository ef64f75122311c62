// Forward of the batch norm family: y = p_t * (w * (x - mean_r) * i_r + b), i_r = 1 / sqrt(var_r + eps).
//
// Means are deviations from the channel's very first value (the pivot, the same for every block).
#pragma once

#include "lanes.cuh"
#include "team.cuh"

namespace spikenorm {

template <typename P>
struct ForwardCoefficients {
    Split<P> mean;
    P gain;
    P offset;
};

template <typename P>
struct RowStatistics {
    Split<P> mean;
    P inverse;
};

template <typename P>
struct Normalise {
    ForwardCoefficients<P> k;
    SPIKENORM_DEVICE P operator()(P x, P) const { return fused(deviation(x, k.mean), k.gain, k.offset); }
};

// The pivot of channel c: its first value of the first step.
template <typename T>
SPIKENORM_DEVICE typename Element<T>::P pivot_of(const NormParams& p, unsigned channel) {
    return Element<T>::load(static_cast<const T*>(p.x)[static_cast<unsigned long long>(channel) * p.space]);
}

// Adds the chunk in shared memory to results().
template <class Lanes, typename T>
SPIKENORM_DEVICE void add_chunk(const Block<T>& b, const typename Element<T>::P* pivots) {
    const NormParams& p = b.p;
    Lanes::moments(b, pivots);
    block_sync();
    const double before = values_between(p, b.begin, b.first);
    const double count = values_between(p, b.first, b.first + b.rows);
    for_each_shared_cell(b, p.parts, [&](unsigned t, unsigned c, unsigned part, unsigned width, bool store) {
        const unsigned cell = t * p.tile_channels + c;
        const Moments own = part < p.parts ? b.parts()[cell * p.parts + part] : Moments{0.0, 0.0, 0.0};
        const double mean = sum_over(own.count * own.mean, width) / count;
        const double off = own.mean - mean;
        const double m2 = sum_over(own.m2 + own.count * off * off, width);
        if (!store) return;
        Moments all{count, mean, m2};
        if (before > 0.0) {
            const Pair earlier = b.results()[cell];
            all = merged(Moments{before, earlier.a, earlier.b}, all);
        }
        b.results()[cell] = Pair{all.mean, all.m2};
    });
}

// Statistics of row `row` of channel `channel` from its cells, `cell(t)` being their moments relative
// to the pivot. Where `write`, saves them and moves the running statistics.
template <typename P, class Cell>
SPIKENORM_DEVICE RowStatistics<P> finish_row(const NormParams& p, unsigned row, unsigned channel, P pivot, bool write, Cell cell) {
    const bool per_step = p.statistics_stride != 0;
    const unsigned first = per_step ? row : 0;
    const unsigned end = per_step ? row + 1 : p.all_steps;
    double mean_of_row = 0.0;
#pragma unroll 1
    for (unsigned t = first; t < end; ++t) mean_of_row += cell(t).a;
    mean_of_row *= p.per_step;
    double m2 = 0.0, between = 0.0;
#pragma unroll 1
    for (unsigned t = first; t < end; ++t) {
        const Pair pair = cell(t);
        const double off = pair.a - mean_of_row;
        m2 += pair.b;
        between += off * off;
    }
    // Every cell of the row has as many values.
    const double var = (m2 * p.per_cell + between) * p.per_step;
    const RowStatistics<P> found{split_sum(pivot, mean_of_row), inverse_root<P>(var + p.eps)};
    if (write) {
        const unsigned long long at = static_cast<unsigned long long>(row) * p.statistics_stride + channel;
        const unsigned long long plane = static_cast<unsigned long long>(per_step ? p.all_steps : 1) * p.channels;
        if (p.statistics != nullptr) {
            P* saved = static_cast<P*>(p.statistics) + at;
            saved[0] = found.mean.high;
            saved[plane] = found.mean.low;
            saved[2 * plane] = found.inverse;
        }
        if (p.running_mean != nullptr) {
            P* mean = static_cast<P*>(p.running_mean) + at;
            P* variance = static_cast<P*>(p.running_var) + at;
            const bool cumulative = p.momentum != p.momentum;
            const double f = cumulative ? 1.0 / (static_cast<double>(p.counters[row]) + 1.0) : p.momentum;
            const double unbiased = (m2 + between * values_between(p, 0, p.rows)) * p.per_freedom;
            *mean = static_cast<P>((1.0 - f) * *mean + f * (static_cast<double>(found.mean.high) + found.mean.low));
            *variance = static_cast<P>((1.0 - f) * *variance + f * unbiased);
        }
    }
    return found;
}

// Once every block that moves running statistics has read the counters: one more batch. `blocks` come here.
SPIKENORM_DEVICE void count_batch(const NormParams& p, unsigned blocks, unsigned* flag) {
    if (p.counters == nullptr || !is_last_block(p.barriers, blocks, flag)) return;
    const unsigned rows = p.statistics_stride != 0 ? p.all_steps : 1;
    for (unsigned row = thread_index(); row < rows; row += thread_count()) p.counters[row] += 1;
}

// Statistics an earlier launch has left, or the running ones, which are saved where `write`.
template <typename P>
SPIKENORM_DEVICE RowStatistics<P> known_row(const NormParams& p, unsigned step, unsigned channel, bool write) {
    const unsigned long long at = static_cast<unsigned long long>(step) * p.statistics_stride + channel;
    const unsigned long long plane =
        static_cast<unsigned long long>(p.statistics_stride != 0 ? p.all_steps : 1) * p.channels;
    P* saved = static_cast<P*>(p.statistics) + at;
    if (p.batch_statistics) return {{saved[0], saved[plane]}, saved[2 * plane]};
    const double var = static_cast<const P*>(p.running_var)[at];
    const RowStatistics<P> found{{static_cast<const P*>(p.running_mean)[at], P(0)},
                                 inverse_root<P>(var + p.eps)};
    if (write && p.statistics != nullptr) {
        saved[0] = found.mean.high;
        saved[plane] = P(0);
        saved[2 * plane] = found.inverse;
    }
    return found;
}

// [rows, C] entry of step t, or `absent`.
template <typename P>
SPIKENORM_DEVICE double entry(const void* tensor, unsigned stride, unsigned step, unsigned channel, double absent) {
    if (tensor == nullptr) return absent;
    return static_cast<const P*>(tensor)[static_cast<unsigned long long>(step) * stride + channel];
}

// Says that the entries of a cell will be read soon.
template <typename P>
SPIKENORM_DEVICE void expect_entries(const NormParams& p, unsigned step, unsigned channel) {
    if (p.weight != nullptr) prefetch(static_cast<const P*>(p.weight) + static_cast<unsigned long long>(step) * p.weight_stride + channel);
    if (p.bias != nullptr) prefetch(static_cast<const P*>(p.bias) + static_cast<unsigned long long>(step) * p.bias_stride + channel);
    if (p.scale != nullptr) prefetch(static_cast<const P*>(p.scale) + step);
}

// Writes the same entry of a copy, where there is one; a row shared over time once.
template <typename P>
SPIKENORM_DEVICE void keep(void* copy, unsigned stride, unsigned step, unsigned channel, double value) {
    if (copy == nullptr || (stride == 0 && step != 0)) return;
    static_cast<P*>(copy)[static_cast<unsigned long long>(step) * stride + channel] = static_cast<P>(value);
}

template <typename T, class Lanes>
SPIKENORM_DEVICE void norm_forward(const NormParams& p) {
    using P = typename Element<T>::P;
    Block<T> b(p);
    const bool whole = p.phase == SPIKENORM_PHASE_BOTH;
    const bool sums = p.phase != SPIKENORM_PHASE_APPLY;
    P* pivots = b.row_state();
    ForwardCoefficients<P>* coefficients = b.template coefficients<ForwardCoefficients<P>>();

    for (unsigned tile = b.team; tile < p.tiles; tile += p.teams) {
        b.enter_tile(tile);
        const unsigned chunks = b.chunks();
        if (sums) {
            for (unsigned chunk = 0; chunk < chunks; ++chunk) {
                b.enter_chunk(chunk);
                load_chunk(b, p.x, 0);
                if (chunk == 0) {
                    for (unsigned c = thread_index(); c < b.live; c += thread_count()) pivots[c] = pivot_of<T>(p, b.channel + c);
                    for_each_cell(b, [&](unsigned t, unsigned c) { expect_entries<P>(p, p.first_step + t, b.channel + c); });
                }
                copy_wait();
                block_sync();
                add_chunk<Lanes>(b, pivots);
            }
            publish(b);
        }
        if (p.phase == SPIKENORM_PHASE_SUMS) {
            block_sync();
            continue;
        }
        if (whole) {
            merge_moments(b);
            block_sync();
            part_with(b);
        }
        // Of a row shared over time each step's thread finds the statistics, and step 0's writes them.
        for_each_cell(b, [&](unsigned t, unsigned c) {
            const unsigned step = p.first_step + t;
            const unsigned channel = b.channel + c;
            const bool first_of_row = b.member == 0 && (p.statistics_stride != 0 || step == 0);
            const auto cell = [&](unsigned other) { return b.merged()[other * p.tile_channels + c]; };
            const RowStatistics<P> row = whole ? finish_row<P>(p, step, channel, pivots[c], first_of_row, cell)
                                               : known_row<P>(p, step, channel, first_of_row);
            const double scale = p.scale != nullptr ? static_cast<const P*>(p.scale)[step] : 1.0;
            const double weight = entry<P>(p.weight, p.weight_stride, step, channel, 1.0);
            const double bias = entry<P>(p.bias, p.bias_stride, step, channel, 0.0);
            coefficients[t * p.tile_channels + c] = {row.mean, static_cast<P>(scale * weight * row.inverse),
                                                     static_cast<P>(scale * bias)};
            if (b.member == 0) {
                keep<P>(p.weight_out, p.weight_stride, step, channel, weight);
                keep<P>(p.bias_out, p.bias_stride, step, channel, bias);
                if (p.scale_out != nullptr && channel == 0) static_cast<P*>(p.scale_out)[step] = static_cast<P>(scale);
            }
        });
        // From the last chunk, which is still here, to the first: what was read last is in L2.
        for (unsigned chunk = chunks; chunk-- > 0;) {
            b.enter_chunk(chunk);
            if (!whole || chunk + 1 < chunks) {
                load_chunk(b, p.x, 0);
                copy_wait();
            }
            block_sync();
            Lanes::template apply<1>(b, p.out, [&](unsigned t, unsigned c) {
                return Normalise<P>{coefficients[t * p.tile_channels + c]};
            });
            block_sync();
        }
        release(b);
    }
    if (whole && b.member == 0) count_batch(p, p.teams, reinterpret_cast<unsigned*>(b.partial()));
}

// What a thread between the halves of a forward in two launches does.
template <typename T>
SPIKENORM_DEVICE void combine_row(const NormParams& p, unsigned row, unsigned channel) {
    finish_row<typename Element<T>::P>(p, row, channel, pivot_of<T>(p, channel), true, [&](unsigned t) {
        Moments cell{0.0, 0.0, 0.0};
        for (unsigned member = 0; member < p.team; ++member) {
            const double* at = slot(p, t, channel, member);
            cell = merged(cell, {values_between(p, first_row(p, member), first_row(p, member + 1)), at[0], at[1]});
        }
        return Pair{cell.mean, cell.m2};
    });
}

// Between the halves of a forward in two launches: one thread per statistics row and channel.
template <typename T>
SPIKENORM_DEVICE void combine_forward(const NormParams& p) {
    const unsigned rows = p.statistics_stride != 0 ? p.all_steps : 1;
    const unsigned long long threads = static_cast<unsigned long long>(rows) * p.channels;
    const unsigned long long index = static_cast<unsigned long long>(block_index()) * thread_count() + thread_index();
    if (index < threads) {
        combine_row<T>(p, static_cast<unsigned>(index / p.channels), static_cast<unsigned>(index % p.channels));
    }
    const unsigned blocks = static_cast<unsigned>((threads + thread_count() - 1) / thread_count());
    count_batch(p, blocks, reinterpret_cast<unsigned*>(dynamic_shared()));
}

}  // namespace spikenorm

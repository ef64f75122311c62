// Forward of the batch norm family: y = p_t * (w * (x - mean_r) * i_r + b), i_r = 1 / sqrt(var_r + eps).
//
// Per cell, two passes over the tile in shared memory: the mean, roughly, as a deviation from the channel's very
// first value (the pivot, the same for every block), then the squared deviations from that centre and, without
// rounding errors, the sum that says how far off it was. Never a difference of sums of squares.
#pragma once

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

// Sums of deviations from the pivot, and of their magnitudes.
template <typename P>
struct SumFromPivot {
    P pivot, a, b;
    template <int N>
    SPIKENORM_DEVICE void add(const P (&x)[N], const P (&)[N]) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const P d = x[i] - pivot;
            a += d;
            b += magnitude(d);
        }
    }
    SPIKENORM_DEVICE Pair sums() const { return {a, b}; }
};

// Where values are to be counted from so that no difference is rounded: from a centre far beyond their spread, since
// numbers within a factor of two of each other have exact differences (Sterbenz); else from zero.
constexpr int kFarBeyondSpread = 16;

// Sums of deviations from the base, and of squared deviations from the centre.
template <typename P>
struct SumFromCentre {
    P centre, base, bound;
    Accumulator<P> a;
    P b;
    template <int N>
    SPIKENORM_DEVICE void add(const P (&x)[N], const P (&)[N]) {
        P d[N];
        P largest = P(0);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            d[i] = x[i] - base;
            largest = larger(largest, magnitude(d[i]));
        }
        a.expect(largest, bound);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            a.add(d[i]);
            const P e = x[i] - centre;
            b = fused(e, e, b);
        }
    }
    SPIKENORM_DEVICE Pair sums() const { return {a.total(bound), b}; }
};

template <typename P>
struct Normalise {
    ForwardCoefficients<P> k;
    SPIKENORM_DEVICE P operator()(P x, P) const { return fused(deviation(x, k.mean), k.gain, k.offset); }
};

template <typename P>
struct Centre {
    P centre, base;
};

// The pivot of channel c: its first value of the first step.
template <typename T>
SPIKENORM_DEVICE typename Element<T>::P pivot_of(const NormParams& p, unsigned channel) {
    return Element<T>::load(static_cast<const T*>(p.x)[static_cast<unsigned long long>(channel) * p.space]);
}

// Adds the chunk in shared memory to results().
template <class Lanes, typename T>
SPIKENORM_DEVICE void add_chunk(const Block<T>& b, const typename Element<T>::P* pivots) {
    using P = typename Element<T>::P;
    const NormParams& p = b.p;
    const double before = values_between(p, b.begin, b.first);
    const double count = values_between(p, b.first, b.first + b.rows);
    const double per_value = 1.0 / count;
    Centre<P>* centres = b.template coefficients<Centre<P>>();

    Lanes::template sum<1>(b, [&](unsigned, unsigned c, P) { return SumFromPivot<P>{pivots[c], P(0), P(0)}; });
    block_sync();
    for_each_cell(b, [&](unsigned t, unsigned c) {
        const unsigned cell = t * p.tile_channels + c;
        const Pair sums = sum_parts(b, cell);
        const P centre = static_cast<P>(pivots[c] + sums.a * per_value);
        const bool far = magnitude(centre) > kFarBeyondSpread * (sums.b * per_value);
        centres[cell] = {centre, far ? centre : P(0)};
    });
    block_sync();
    Lanes::template sum<1>(b, [&](unsigned t, unsigned c, P bound) {
        const Centre<P> k = centres[t * p.tile_channels + c];
        return SumFromCentre<P>{k.centre, k.base, bound, Accumulator<P>::empty(), P(0)};
    });
    block_sync();
    for_each_cell(b, [&](unsigned t, unsigned c) {
        const unsigned cell = t * p.tile_channels + c;
        const Centre<P> k = centres[cell];
        const Pair sums = sum_parts(b, cell);
        const double from_base = sums.a * per_value;
        const double off = from_base - (static_cast<double>(k.centre) - k.base);
        const double m2 = sums.b - count * off * off;
        // NaN stays NaN; only rounding below zero is cut off.
        Moments all{count, (static_cast<double>(k.base) - pivots[c]) + from_base, m2 < 0.0 ? 0.0 : m2};
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
    const RowStatistics<P> found{split_sum(pivot, mean_of_row), static_cast<P>(1.0 / square_root(var + p.eps))};
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
                                 static_cast<P>(1.0 / square_root(var + p.eps))};
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
    RowStatistics<P>* statistics = reinterpret_cast<RowStatistics<P>*>(pivots + p.tile_channels);
    ForwardCoefficients<P>* coefficients = b.template coefficients<ForwardCoefficients<P>>();

    for (unsigned tile = b.team; tile < p.tiles; tile += p.teams) {
        b.enter_tile(tile);
        const unsigned chunks = b.chunks();
        if (sums) {
            for (unsigned chunk = 0; chunk < chunks; ++chunk) {
                b.enter_chunk(chunk);
                start_loading<1>(b, tile);
                if (chunk == 0) {
                    for (unsigned c = thread_index(); c < b.live; c += thread_count()) pivots[c] = pivot_of<T>(p, b.channel + c);
                    for_each_cell(b, [&](unsigned t, unsigned c) { expect_entries<P>(p, p.first_step + t, b.channel + c); });
                }
                finish_loading(b, tile);
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
            const unsigned rows = p.statistics_stride != 0 ? p.steps : 1;
            for (unsigned i = thread_index(); i < rows * b.live; i += thread_count()) {
                const unsigned c = i % b.live;
                statistics[i / b.live * p.tile_channels + c] =
                    finish_row<P>(p, i / b.live, b.channel + c, pivots[c], b.member == 0,
                                  [&](unsigned t) { return b.merged()[t * p.tile_channels + c]; });
            }
            block_sync();
        }
        for_each_cell(b, [&](unsigned t, unsigned c) {
            const unsigned step = p.first_step + t;
            const unsigned channel = b.channel + c;
            const bool first_of_row = b.member == 0 && (p.statistics_stride != 0 || step == 0);
            const RowStatistics<P> row = whole ? statistics[(p.statistics_stride != 0 ? t * p.tile_channels : 0) + c]
                                               : known_row<P>(p, step, channel, first_of_row);
            const double scale = p.scale != nullptr ? static_cast<const P*>(p.scale)[step] : 1.0;
            const double weight = entry<P>(p.weight, p.weight_stride, step, channel, 1.0);
            const double bias = entry<P>(p.bias, p.bias_stride, step, channel, 0.0);
            if (b.member == 0) {
                keep<P>(p.weight_out, p.weight_stride, step, channel, weight);
                keep<P>(p.bias_out, p.bias_stride, step, channel, bias);
                if (p.scale_out != nullptr && channel == 0) static_cast<P*>(p.scale_out)[step] = static_cast<P>(scale);
            }
            coefficients[t * p.tile_channels + c] = {row.mean, static_cast<P>(scale * weight * row.inverse),
                                                     static_cast<P>(scale * bias)};
        });
        // From the last chunk, which is still here, to the first: what was read last is in L2.
        for (unsigned chunk = chunks; chunk-- > 0;) {
            b.enter_chunk(chunk);
            if (!whole || chunk + 1 < chunks) {
                start_loading<1>(b, tile);
                finish_loading(b, tile);
            }
            block_sync();
            Lanes::template apply<1>(b, p.out, [&](unsigned t, unsigned c) {
                return Normalise<P>{coefficients[t * p.tile_channels + c]};
            });
            block_sync();
        }
        release(b);
        b.buffer = p.buffer_bytes - b.buffer;
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

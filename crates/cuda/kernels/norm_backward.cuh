// Backward of the batch norm family, from S1 = sum(dy) and S2 = sum(dy * xhat) of each cell:
//
//   dweight = sum_t p S2    dbias = sum_t p S1    dscale[t] = sum_c (w S2 + b S1)
//   dx = i (p w dy - k1 - xhat k2), k1 and k2 the means over the statistics row of p w S1 and p w S2
//
// Where w is the same for the whole statistics row it is taken out of the brackets, so that a constant
// gradient cancels exactly: dx = (i w) ((p dy - m1) - (x - mean) i m2).
#pragma once

#include "norm_forward.cuh"

namespace spikenorm {

template <typename P>
struct BackwardCoefficients {
    Split<P> mean;
    Split<P> m1;
    P inner;  // p, or p w
    P m2;     // i m2
    P outer;  // i w, or i
};

// Sums of dy and of dy * (x - base).
template <typename P>
struct SumGradients {
    P base;
    Accumulator<P> a, b;
    template <int N>
    SPIKENORM_DEVICE void add(const P (&x)[N], const P (&dy)[N], P bound) {
        P d[N];
        P largest = P(0), largest_dy = P(0);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            d[i] = x[i] - base;
            largest = larger(largest, magnitude(d[i]));
            largest_dy = larger(largest_dy, magnitude(dy[i]));
        }
        a.expect(largest_dy, bound);
        b.expect(largest_dy * largest, bound);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            a.add(dy[i]);
            b.add_product(dy[i], d[i]);
        }
    }
    SPIKENORM_DEVICE Pair sums(P bound) const { return {a.total(bound), b.total(bound)}; }
};

// What x is counted from in the sums of a row.
template <typename P>
SPIKENORM_DEVICE P base_of(const RowStatistics<P>& row) {
    return magnitude(row.mean.high) * row.inverse > P(kFarBeyondSpread) ? row.mean.high : P(0);
}

template <typename P>
struct Differentiate {
    BackwardCoefficients<P> k;
    SPIKENORM_DEVICE P operator()(P x, P dy) const {
        const P centred = fused(k.inner, dy, -k.m1.high) - k.m1.low;
        // Where m2 is 0, as under running statistics, dx does not depend on x: an infinite x must not make it NaN.
        const P from_x = k.m2 != P(0) ? deviation(x, k.mean) : P(0);
        return k.outer * fused(-from_x, k.m2, centred);
    }
};

template <typename P>
SPIKENORM_DEVICE double scale_of(const NormParams& p, unsigned step) {
    return p.scale != nullptr ? static_cast<const P*>(p.scale)[step] : 1.0;
}

SPIKENORM_DEVICE bool weight_varies_in_row(const NormParams& p) {
    return p.weight != nullptr && p.weight_stride != 0 && p.statistics_stride == 0;
}

// The factor of dy inside the brackets.
template <typename P>
SPIKENORM_DEVICE double inner_gain(const NormParams& p, unsigned step, unsigned channel) {
    const double scale = scale_of<P>(p, step);
    return weight_varies_in_row(p) ? scale * entry<P>(p.weight, p.weight_stride, step, channel, 1.0) : scale;
}

// Means over statistics row `row` of inner_gain * S1 and inner_gain * S2.
template <typename P, class Cell>
SPIKENORM_DEVICE Pair row_mean(const NormParams& p, unsigned row, unsigned channel, Cell cell) {
    Pair mean{0.0, 0.0};
    if (!p.batch_statistics) return mean;
    const bool per_step = p.statistics_stride != 0;
#pragma unroll 1
    for (unsigned t = per_step ? row : 0; t < (per_step ? row + 1 : p.all_steps); ++t) {
        const double gain = inner_gain<P>(p, t, channel);
        const Pair sums = cell(t);
        mean.a += gain * sums.a;
        mean.b += gain * sums.b;
    }
    const double per_value = p.per_cell * p.per_step;
    return {mean.a * per_value, mean.b * per_value};
}

// dweight or dbias of one row and channel: sum of p * (S2 or S1) over the row's steps.
template <typename P, class Cell>
SPIKENORM_DEVICE void write_gradient(const NormParams& p, void* gradient, unsigned stride, unsigned row, unsigned channel,
                                     double Pair::*which, Cell cell) {
    double sum = 0.0;
#pragma unroll 1
    for (unsigned t = stride != 0 ? row : 0; t < (stride != 0 ? row + 1 : p.all_steps); ++t) {
        sum += scale_of<P>(p, t) * (cell(t).*which);
    }
    static_cast<P*>(gradient)[static_cast<unsigned long long>(row) * stride + channel] = static_cast<P>(sum);
}

// Parameter gradients of one channel for step t's row; rows shared over time are step 0's.
template <typename P, class Cell>
SPIKENORM_DEVICE void write_gradients(const NormParams& p, unsigned t, unsigned channel, Cell cell) {
    if (p.weight_out != nullptr && (t == 0 || p.weight_stride != 0)) {
        write_gradient<P>(p, p.weight_out, p.weight_stride, t, channel, &Pair::b, cell);
    }
    if (p.bias_out != nullptr && (t == 0 || p.bias_stride != 0)) {
        write_gradient<P>(p, p.bias_out, p.bias_stride, t, channel, &Pair::a, cell);
    }
    if (p.scale_out != nullptr) {
        const Pair sums = cell(t);
        const double weight = entry<P>(p.weight, p.weight_stride, t, channel, 1.0);
        const double bias = entry<P>(p.bias, p.bias_stride, t, channel, 0.0);
        p.scale_terms[static_cast<unsigned long long>(t) * p.channels + channel] = weight * sums.b + bias * sums.a;
    }
}

// dscale from the terms of all channels, by the last block: a warp per step, lanes over channels.
template <typename P>
SPIKENORM_DEVICE void write_scale_gradient(const NormParams& p) {
    const unsigned lane = thread_index() % 32;
    for (unsigned t = thread_index() / 32; t < p.all_steps; t += thread_count() / 32) {
        double sum = 0.0;
        for (unsigned c = lane; c < p.channels; c += 32) {
            sum += load_fresh(p.scale_terms + static_cast<unsigned long long>(t) * p.channels + c);
        }
        sum = warp_sum(sum);
        if (lane == 0) static_cast<P*>(p.scale_out)[t] = static_cast<P>(sum);
    }
}

template <typename P>
SPIKENORM_DEVICE RowStatistics<P> saved_row(const NormParams& p, unsigned step, unsigned channel) {
    const P* saved = static_cast<const P*>(p.statistics) + static_cast<unsigned long long>(step) * p.statistics_stride + channel;
    const unsigned long long plane =
        static_cast<unsigned long long>(p.statistics_stride != 0 ? p.all_steps : 1) * p.channels;
    return {{saved[0], saved[plane]}, saved[2 * plane]};
}

template <typename P>
SPIKENORM_DEVICE BackwardCoefficients<P> backward_coefficients(const NormParams& p, unsigned step, unsigned channel, Pair mean) {
    const RowStatistics<P> row = saved_row<P>(p, step, channel);
    const double weight = weight_varies_in_row(p) ? 1.0 : entry<P>(p.weight, p.weight_stride, step, channel, 1.0);
    return {row.mean,
            split_sum(P(0), mean.a),
            static_cast<P>(inner_gain<P>(p, step, channel)),
            p.batch_statistics ? static_cast<P>(row.inverse * mean.b) : P(0),
            static_cast<P>(row.inverse * weight)};
}

template <typename T, class Lanes>
SPIKENORM_DEVICE void norm_backward(const NormParams& p) {
    using P = typename Element<T>::P;
    Block<T> b(p);
    const bool whole = p.phase == SPIKENORM_PHASE_BOTH;
    RowStatistics<P>* rows_of_cells = b.template coefficients<RowStatistics<P>>();
    BackwardCoefficients<P>* coefficients = b.template coefficients<BackwardCoefficients<P>>();

    for (unsigned tile = b.team; tile < p.tiles; tile += p.teams) {
        b.enter_tile(tile);
        const unsigned chunks = b.chunks();
        if (p.phase != SPIKENORM_PHASE_APPLY) {
            for (unsigned chunk = 0; chunk < chunks; ++chunk) {
                b.enter_chunk(chunk);
                load_chunk(b, p.x, 0);
                load_chunk(b, p.dy, 1);
                if (chunk == 0) {
                    for_each_cell(b, [&](unsigned t, unsigned c) {
                        expect_entries<P>(p, p.first_step + t, b.channel + c);
                        b.results()[t * p.tile_channels + c] = Pair{0.0, 0.0};
                        rows_of_cells[t * p.tile_channels + c] = saved_row<P>(p, p.first_step + t, b.channel + c);
                    });
                }
                copy_wait();
                block_sync();
                Lanes::sum(b, [&](unsigned t, unsigned c) {
                    const P base = base_of(rows_of_cells[t * p.tile_channels + c]);
                    return SumGradients<P>{base, Accumulator<P>::empty(), Accumulator<P>::empty()};
                });
                block_sync();
                for_each_shared_cell(b, p.parts, [&](unsigned t, unsigned c, unsigned part, unsigned width, bool store) {
                    const unsigned cell = t * p.tile_channels + c;
                    const Pair own = part < p.parts ? b.partial()[cell * p.parts + part] : Pair{0.0, 0.0};
                    const Pair sums{sum_over(own.a, width), sum_over(own.b, width)};
                    if (!store) return;
                    const RowStatistics<P>& row = rows_of_cells[cell];
                    const double from_base = (static_cast<double>(row.mean.high) - base_of(row)) + row.mean.low;
                    b.results()[cell].a += sums.a;
                    b.results()[cell].b += (sums.b - sums.a * from_base) * row.inverse;
                });
            }
            publish(b);
        }
        if (p.phase == SPIKENORM_PHASE_SUMS) {
            block_sync();
            continue;
        }
        if (whole) {
            merge_sums(b);
            block_sync();
            part_with(b);
        }
        for_each_cell(b, [&](unsigned t, unsigned c) {
            const unsigned step = p.first_step + t;
            const unsigned channel = b.channel + c;
            const auto cell = [&](unsigned other) { return b.merged()[other * p.tile_channels + c]; };
            Pair mean{0.0, 0.0};
            if (whole) {
                mean = row_mean<P>(p, step, channel, cell);
            } else {
                const unsigned rows = p.statistics_stride != 0 ? p.all_steps : 1;
                const double* at = p.row_means + static_cast<unsigned long long>(step) * p.statistics_stride + channel;
                mean = {at[0], at[static_cast<unsigned long long>(rows) * p.channels]};
            }
            coefficients[t * p.tile_channels + c] = backward_coefficients<P>(p, step, channel, mean);
            if (whole && b.member == 0) write_gradients<P>(p, step, channel, cell);
        });
        for (unsigned chunk = chunks; chunk-- > 0;) {
            b.enter_chunk(chunk);
            if (!whole || chunk + 1 < chunks) {
                load_chunk(b, p.x, 0);
                load_chunk(b, p.dy, 1);
                copy_wait();
            }
            block_sync();
            Lanes::template apply<2>(b, p.out, [&](unsigned t, unsigned c) {
                return Differentiate<P>{coefficients[t * p.tile_channels + c]};
            });
            block_sync();
        }
        if (whole && p.scale_out != nullptr && b.member == 0) {
            if (is_last_block(p.barriers, p.tiles, reinterpret_cast<unsigned*>(b.partial()))) {
                write_scale_gradient<P>(p);
            }
            block_sync();
        }
        release(b);
    }
}

// Between the halves of a backward in two launches: one thread per step and channel.
template <typename P>
SPIKENORM_DEVICE void combine_backward(const NormParams& p) {
    const unsigned long long threads = static_cast<unsigned long long>(p.all_steps) * p.channels;
    const unsigned long long index = static_cast<unsigned long long>(block_index()) * thread_count() + thread_index();
    if (index < threads) {
        const unsigned t = static_cast<unsigned>(index / p.channels);
        const unsigned channel = static_cast<unsigned>(index % p.channels);
        const auto cell = [&](unsigned step) {
            Pair sums{0.0, 0.0};
            for (unsigned member = 0; member < p.team; ++member) {
                const double* at = slot(p, step, channel, member);
                sums.a += at[0];
                sums.b += at[1];
            }
            return sums;
        };
        if (t == 0 || p.statistics_stride != 0) {
            const Pair mean = row_mean<P>(p, t, channel, cell);
            const unsigned rows = p.statistics_stride != 0 ? p.all_steps : 1;
            double* at = p.row_means + static_cast<unsigned long long>(t) * p.statistics_stride + channel;
            at[0] = mean.a;
            at[static_cast<unsigned long long>(rows) * p.channels] = mean.b;
        }
        write_gradients<P>(p, t, channel, cell);
    }
    if (p.scale_out != nullptr) {
        const unsigned blocks = static_cast<unsigned>((threads + thread_count() - 1) / thread_count());
        if (is_last_block(p.barriers, blocks, reinterpret_cast<unsigned*>(dynamic_shared()))) {
            write_scale_gradient<P>(p);
        }
    }
}

}  // namespace spikenorm

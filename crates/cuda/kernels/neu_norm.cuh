// NeuNorm: s_t = k s_{t-1} + k1 sum_c x_t, y_t = x_t - w s_t, and its gradient with t descending:
// d_t = -sum_c w dy_t + k d_{t+1}, dx_t = dy_t + k1 d_t, dw = -sum_{t,n} dy_t s_t.
//
// A block owns a strip of pixels with all channels, of one sample (forward) or of a group of samples
// (backward, which sums dw over them), and walks t inside. `lanes` threads share a column of V pixels
// over channels; each keeps its first few values in registers between the sum and the write, so that
// memory is read once. Channels beyond those are read again, from cache.
#pragma once

#include "team.cuh"

namespace spikenorm {

using NeuNormParams = SpikenormNeuNormParams;

// Channels per thread kept in registers: as many as 64 registers hold without spilling. Backward keeps
// a sum beside each.
template <int V>
constexpr unsigned kept_forward = 4;
template <int V>
constexpr unsigned kept_backward = V == 1 ? 4 : 2;

template <typename T, int V>
struct Strip {
    using E = Element<T>;
    using P = typename E::P;

    const NeuNormParams& p;
    unsigned column, lane;
    unsigned strip, group;
    unsigned pixel;  // first of this thread's column
    bool holds;      // a place in the block's columns and lanes
    bool live;       // and pixels there

    SPIKENORM_DEVICE explicit Strip(const NeuNormParams& params)
        : p(params), column(params.lanes_first ? thread_index() / params.lanes : thread_index() % params.columns),
          lane(params.lanes_first ? thread_index() % params.lanes : thread_index() / params.columns),
          strip(block_index() % params.strips), group(block_index() / params.strips),
          pixel((strip * params.columns + column) * V), holds(lane < params.lanes && column < params.columns), live(holds && pixel < params.pixels) {}

    SPIKENORM_DEVICE unsigned long long offset(unsigned step, unsigned sample, unsigned channel) const {
        return step * p.step_stride + sample * p.sample_stride + channel * p.channel_stride + pixel * p.pixel_stride;
    }
    SPIKENORM_DEVICE Pack<T, V> load(unsigned step, unsigned sample, unsigned channel) const {
        return *reinterpret_cast<const Pack<T, V>*>(static_cast<const T*>(p.in) + offset(step, sample, channel));
    }
    SPIKENORM_DEVICE void store(unsigned step, unsigned sample, unsigned channel, const Pack<T, V>& value) const {
        *reinterpret_cast<Pack<T, V>*>(static_cast<T*>(p.out) + offset(step, sample, channel)) = value;
    }
    SPIKENORM_DEVICE P weight(unsigned channel, int v) const {
        const unsigned row = p.weight_rows == 1 ? 0 : channel;
        return static_cast<const P*>(p.weight)[static_cast<unsigned long long>(row) * p.pixels + pixel + v];
    }
    // Index of this column in a [rows, HW] tensor.
    SPIKENORM_DEVICE unsigned long long at(unsigned long long row) const { return row * p.pixels + pixel; }

    // Sums over the lanes of a column, in order, the same bits in each. Every thread of the block must
    // call; the sums stay in shared memory between the two barriers.
    SPIKENORM_DEVICE void sum_lanes(const P (&mine)[V], double (&total)[V]) const {
        double* shared = reinterpret_cast<double*>(dynamic_shared());
        double* totals = shared + p.lanes * p.columns * V;
        const unsigned width = p.columns * V;
        if (holds) {
            for (int v = 0; v < V; ++v) shared[lane * width + column * V + v] = mine[v];
        }
        block_sync();
        for (unsigned i = thread_index() / 32; i < width; i += thread_count() / 32) {
            double sum = 0.0;
            for (unsigned l = thread_index() % 32; l < p.lanes; l += 32) sum += shared[l * width + i];
            sum = warp_sum(sum);
            if (thread_index() % 32 == 0) totals[i] = sum;
        }
        block_sync();
        for (int v = 0; v < V; ++v) total[v] = holds ? totals[column * V + v] : 0.0;
    }
};

template <typename T, int V>
SPIKENORM_DEVICE void neu_norm_forward(const NeuNormParams& p) {
    using E = Element<T>;
    using P = typename E::P;
    constexpr unsigned kKept = kept_forward<V>;
    const Strip<T, V> s(p);
    const unsigned sample = s.group;
    double state[V];
    for (int v = 0; v < V; ++v) {
        state[v] = s.live && p.state != nullptr ? static_cast<const P*>(p.state)[s.at(sample) + v] : P(0);
    }
    for (unsigned t = 0; t < p.steps; ++t) {
        Pack<T, V> kept[kKept];
        P mine[V];
        for (int v = 0; v < V; ++v) mine[v] = P(0);
        if (s.live) {
#pragma unroll
            for (unsigned i = 0; i < kKept; ++i) {
                const unsigned c = s.lane + i * p.lanes;
                if (c < p.channels) kept[i] = s.load(t, sample, c);
            }
#pragma unroll
            for (unsigned i = 0; i < kKept; ++i) {
                if (s.lane + i * p.lanes >= p.channels) continue;
                for (int v = 0; v < V; ++v) mine[v] += E::load(kept[i].value[v]);
            }
            for (unsigned c = s.lane + kKept * p.lanes; c < p.channels; c += p.lanes) {
                const Pack<T, V> x = s.load(t, sample, c);
                for (int v = 0; v < V; ++v) mine[v] += E::load(x.value[v]);
            }
        }
        double total[V];
        s.sum_lanes(mine, total);
        if (!s.live) continue;
        P applied[V];
        for (int v = 0; v < V; ++v) {
            state[v] = p.k * state[v] + p.input_gain * total[v];
            applied[v] = static_cast<P>(state[v]);
        }
        if (s.lane == 0 && p.states != nullptr) {
            P* saved = static_cast<P*>(p.states) + s.at(static_cast<unsigned long long>(t) * p.samples + sample);
            for (int v = 0; v < V; ++v) saved[v] = applied[v];
        }
        const auto write = [&](unsigned c, Pack<T, V> x) {
            for (int v = 0; v < V; ++v) x.value[v] = E::store(fused(-s.weight(c, v), applied[v], E::load(x.value[v])));
            s.store(t, sample, c, x);
        };
#pragma unroll
        for (unsigned i = 0; i < kKept; ++i) {
            if (s.lane + i * p.lanes < p.channels) write(s.lane + i * p.lanes, kept[i]);
        }
        for (unsigned c = s.lane + kKept * p.lanes; c < p.channels; c += p.lanes) write(c, s.load(t, sample, c));
    }
    if (s.live && s.lane == 0) {
        for (int v = 0; v < V; ++v) static_cast<P*>(p.state_out)[s.at(sample) + v] = static_cast<P>(state[v]);
    }
}

// Adds the groups' partial sums of this strip, in order, into the weight's gradient; for the last block.
template <typename T, int V>
SPIKENORM_DEVICE void write_weight_gradient(const Strip<T, V>& s) {
    using P = typename Element<T>::P;
    const NeuNormParams& p = s.p;
    if (!s.live) return;
    for (unsigned row = s.lane; row < p.weight_rows; row += p.lanes) {
        for (int v = 0; v < V; ++v) {
            double sum = 0.0;
            for (unsigned g = 0; g < p.groups; ++g) {
                const unsigned long long part = static_cast<unsigned long long>(g) * p.weight_rows + row;
                sum += load_fresh(static_cast<const P*>(p.partial) + s.at(part) + v);
            }
            static_cast<P*>(p.weight_grad)[s.at(row) + v] = static_cast<P>(-sum);
        }
    }
}

template <typename T, int V>
SPIKENORM_DEVICE void neu_norm_backward(const NeuNormParams& p) {
    using E = Element<T>;
    using P = typename E::P;
    constexpr unsigned kKept = kept_backward<V>;
    const Strip<T, V> s(p);
    const bool shared_weight = p.weight_rows == 1;
    P* partial = static_cast<P*>(p.partial) + static_cast<unsigned long long>(s.group) * p.weight_rows * p.pixels;
    // Sums of dy * s: of the kept channels one by one, or of all this thread's channels together.
    P sums[kKept][V];
    for (unsigned i = 0; i < kKept; ++i) {
        for (int v = 0; v < V; ++v) sums[i][v] = P(0);
    }
    // Channels that have no register keep their sum in the group's part of the workspace.
    if (s.live && !shared_weight) {
        for (unsigned c = s.lane + kKept * p.lanes; c < p.channels; c += p.lanes) {
            for (int v = 0; v < V; ++v) partial[s.at(c) + v] = P(0);
        }
    }
    const unsigned end = smaller((s.group + 1) * p.group_samples, p.samples);
    for (unsigned sample = s.group * p.group_samples; sample < end; ++sample) {
        double gradient[V];
        for (int v = 0; v < V; ++v) {
            gradient[v] = s.live && p.state != nullptr ? static_cast<const P*>(p.state)[s.at(sample) + v] : P(0);
        }
        for (unsigned t = p.steps; t-- > 0;) {
            Pack<T, V> kept[kKept];
            P mine[V], state[V];
            for (int v = 0; v < V; ++v) mine[v] = state[v] = P(0);
            const auto add = [&](unsigned c, const Pack<T, V>& dy) {
                for (int v = 0; v < V; ++v) mine[v] = fused(s.weight(c, v), E::load(dy.value[v]), mine[v]);
            };
            if (s.live) {
                const P* saved = static_cast<const P*>(p.states) + s.at(static_cast<unsigned long long>(t) * p.samples + sample);
                for (int v = 0; v < V; ++v) state[v] = saved[v];
#pragma unroll
                for (unsigned i = 0; i < kKept; ++i) {
                    const unsigned c = s.lane + i * p.lanes;
                    if (c < p.channels) kept[i] = s.load(t, sample, c);
                }
#pragma unroll
                for (unsigned i = 0; i < kKept; ++i) {
                    if (s.lane + i * p.lanes < p.channels) add(s.lane + i * p.lanes, kept[i]);
                }
                for (unsigned c = s.lane + kKept * p.lanes; c < p.channels; c += p.lanes) add(c, s.load(t, sample, c));
            }
            double total[V];
            s.sum_lanes(mine, total);
            if (!s.live) continue;
            P change[V];
            for (int v = 0; v < V; ++v) {
                gradient[v] = (t + 1 == p.steps ? 1.0 : p.k) * gradient[v] - total[v];
                change[v] = static_cast<P>(p.input_gain * gradient[v]);
            }
            const auto write = [&](unsigned c, const Pack<T, V>& dy, P (&sum)[V]) {
                Pack<T, V> dx;
                for (int v = 0; v < V; ++v) {
                    const P value = E::load(dy.value[v]);
                    dx.value[v] = E::store(value + change[v]);
                    sum[v] = fused(value, state[v], sum[v]);
                }
                s.store(t, sample, c, dx);
            };
#pragma unroll
            for (unsigned i = 0; i < kKept; ++i) {
                const unsigned c = s.lane + i * p.lanes;
                if (c < p.channels) write(c, kept[i], sums[i]);
            }
            for (unsigned c = s.lane + kKept * p.lanes; c < p.channels; c += p.lanes) {
                const Pack<T, V> dy = s.load(t, sample, c);
                if (shared_weight) {
                    write(c, dy, sums[0]);
                    continue;
                }
                P sum[V];
                for (int v = 0; v < V; ++v) sum[v] = partial[s.at(c) + v];
                write(c, dy, sum);
                for (int v = 0; v < V; ++v) partial[s.at(c) + v] = sum[v];
            }
        }
        if (s.live && s.lane == 0) {
            for (int v = 0; v < V; ++v) static_cast<P*>(p.state_out)[s.at(sample) + v] = static_cast<P>(p.k * gradient[v]);
        }
    }
    if (shared_weight) {
        P all[V];
        for (int v = 0; v < V; ++v) {
            all[v] = P(0);
#pragma unroll
            for (unsigned i = 0; i < kKept; ++i) all[v] += sums[i][v];
        }
        double total[V];
        s.sum_lanes(all, total);
        if (s.live && s.lane == 0) {
            for (int v = 0; v < V; ++v) partial[s.at(0) + v] = static_cast<P>(total[v]);
        }
    } else if (s.live) {
#pragma unroll
        for (unsigned i = 0; i < kKept; ++i) {
            const unsigned c = s.lane + i * p.lanes;
            if (c >= p.channels) continue;
            for (int v = 0; v < V; ++v) partial[s.at(c) + v] = sums[i][v];
        }
    }
    if (is_last_block(p.tickets + s.strip, p.groups, reinterpret_cast<unsigned*>(dynamic_shared()))) {
        write_weight_gradient(s);
    }
}

}  // namespace spikenorm

// The two ways to lay threads over a tile in shared memory. `moments` gives each part of each cell's moments to parts():
// a part has a centre of its own, so that no other warp is waited for between the two passes. `sum` gives the Pair of
// each part to partial(), from bodies with add(x[], dy[], bound) and sums(bound); `apply` writes body(x, dy) to `out`, of
// one tensor (x) or two. `make(t, c)` makes the body of a cell.
#pragma once

#include "moments.cuh"
#include "tile.cuh"

namespace spikenorm {

template <typename T, int V>
SPIKENORM_DEVICE Pack<T, V> read_pack(const char* shared) {
    return *reinterpret_cast<const Pack<T, V>*>(shared);
}

// N values of a thread from value `first` of its pack, as they are computed with.
template <typename T, int V, int N>
SPIKENORM_DEVICE void widen_pack(typename Element<T>::P (&values)[N], const Pack<T, V>& pack, int first = 0) {
#pragma unroll
    for (int v = 0; v < N; ++v) values[v] = Element<T>::load(pack.value[first + v]);
}

// Values of a pack that are summed at once: more would not find registers.
template <int V>
constexpr int kAtOnce = V < 4 ? V : 4;

template <typename T, int V>
SPIKENORM_DEVICE void narrow_pack(T* global, const typename Element<T>::P (&values)[V]) {
    using Whole = Word<V * static_cast<int>(sizeof(T))>;
    Pack<T, V> pack;
    if constexpr (V % 2 == 0 && sizeof(T) == 2) {
#pragma unroll
        for (int v = 0; v < V; v += 2) Element<T>::store_two(&pack.value[v], values[v], values[v + 1]);
    } else {
#pragma unroll
        for (int v = 0; v < V; ++v) pack.value[v] = Element<T>::store(values[v]);
    }
    store_word(reinterpret_cast<Whole*>(global), *reinterpret_cast<const Whole*>(&pack));
}

// Lanes over the values of one channel, V at a time (V divides S): a warp takes a part of a cell.
template <int V>
struct SpaceLanes {
    // Calls work(t, c, part) for each item of this warp's.
    template <typename T, class Work>
    static SPIKENORM_DEVICE void for_each_item(const Block<T>& b, Work work) {
        const NormParams& p = b.p;
        const unsigned items = p.steps * b.live * p.parts;
        const float per_part = reciprocal_of(static_cast<float>(p.parts));
        const float per_channel = reciprocal_of(static_cast<float>(b.live));
#pragma unroll 1
        for (unsigned item = b.warp(); item < items; item += b.warps()) {
            const unsigned cell = quotient(item, per_part);
            const unsigned t = quotient(cell, per_channel);
            work(t, cell - t * b.live, item - cell * p.parts);
        }
    }

    // Calls act(row, first value) for each pack of this lane's in a part of a cell.
    template <typename T, class Act>
    static SPIKENORM_DEVICE void for_each_pack(const Block<T>& b, unsigned part, Act act) {
        const NormParams& p = b.p;
        const unsigned columns = p.segment / V;
        const float per_column = reciprocal_of(static_cast<float>(columns));
        const unsigned by_row = quotient(p.parts * 32, per_column);
        const unsigned by_column = p.parts * 32 - by_row * columns;
        const unsigned start = part * 32 + b.lane();
        unsigned row = quotient(start, per_column);
        unsigned column = start - row * columns;
#pragma unroll 1
        while (row < b.rows) {
            if (p.segments == 1 || column * V < row_values(p, b.first + row)) act(row, column * V);
            row += by_row;
            column += by_column;
            if (column >= columns) {
                column -= columns;
                row += 1;
            }
        }
    }

    template <typename T, class Make>
    static SPIKENORM_DEVICE void sum(const Block<T>& b, Make make) {
        using P = typename Element<T>::P;
        const NormParams& p = b.p;
        for_each_item(b, [&](unsigned t, unsigned c, unsigned part) {
            auto body = make(t, c);
            const char* first = b.row(0, t, 0) + c * p.segment * static_cast<unsigned>(sizeof(T));
            for_each_pack(b, part, [&](unsigned row, unsigned at) {
                const char* here = first + row * p.pitch + at * static_cast<unsigned>(sizeof(T));
                const Pack<T, V> x_pack = read_pack<T, V>(here);
                const Pack<T, V> dy_pack = read_pack<T, V>(here + p.tensor_bytes);
#pragma unroll
                for (int v = 0; v < V; v += kAtOnce<V>) {
                    P x[kAtOnce<V>], dy[kAtOnce<V>];
                    widen_pack(x, x_pack, v);
                    widen_pack(dy, dy_pack, v);
                    body.add(x, dy, P(p.bound));
                }
            });
            const Pair own = body.sums(P(p.bound));
            const Pair sums{warp_sum(own.a), warp_sum(own.b)};
            if (b.lane() == 0) b.partial()[(t * p.tile_channels + c) * p.parts + part] = sums;
        });
    }

    template <typename T, class P>
    static SPIKENORM_DEVICE void moments(const Block<T>& b, const P* pivots) {
        const NormParams& p = b.p;
        for_each_item(b, [&](unsigned t, unsigned c, unsigned part) {
            const char* first = b.row(0, t, 0) + c * p.segment * static_cast<unsigned>(sizeof(T));
            const auto each = [&](auto act) {
                for_each_pack(b, part, [&](unsigned row, unsigned at) {
                    const Pack<T, V> pack = read_pack<T, V>(first + row * p.pitch + at * static_cast<unsigned>(sizeof(T)));
#pragma unroll
                    for (int v = 0; v < V; v += kAtOnce<V>) {
                        P x[kAtOnce<V>];
                        widen_pack(x, pack, v);
                        act(x);
                    }
                });
            };
            P count = P(0);
            SumFromPivot<P> rough{pivots[c], P(0), P(0)};
            each([&](const P (&x)[kAtOnce<V>]) {
                count += P(kAtOnce<V>);
                rough.add(x);
            });
            count = warp_sum(count);
            SumFromCentre<P> body = SumFromPivot<P>{rough.pivot, warp_sum(rough.a), warp_sum(rough.b)}.centred(count);
            each([&](const P (&x)[kAtOnce<V>]) { body.add(x, P(p.bound)); });
            const Pair own = body.sums(P(p.bound));
            const Pair sums{warp_sum(own.a), warp_sum(own.b)};
            if (b.lane() == 0) b.parts()[(t * p.tile_channels + c) * p.parts + part] = body.moments(count, pivots[c], sums);
        });
    }

    template <int TENSORS, typename T, class Make>
    static SPIKENORM_DEVICE void apply(const Block<T>& b, void* out, Make make) {
        using P = typename Element<T>::P;
        const NormParams& p = b.p;
        for_each_item(b, [&](unsigned t, unsigned c, unsigned part) {
            const auto body = make(t, c);
            const char* first = b.row(0, t, 0) + c * p.segment * static_cast<unsigned>(sizeof(T));
            T* to = static_cast<T*>(out) + cell_offset(p, t, b.channel + c);
            for_each_pack(b, part, [&](unsigned row, unsigned at) {
                const char* here = first + row * p.pitch + at * static_cast<unsigned>(sizeof(T));
                P x[V], dy[V];
                widen_pack(x, read_pack<T, V>(here));
                if constexpr (TENSORS == 2) widen_pack(dy, read_pack<T, V>(here + p.tensor_bytes));
#pragma unroll
                for (int v = 0; v < V; ++v) x[v] = body(x[v], dy[v]);
                narrow_pack<T, V>(to + row_offset(p, b.first + row) + at, x);
            });
        });
    }
};

// S = 1: lanes over channels, V neighbours each; `lane_columns` lanes side by side, the other lanes of
// the warp and the parts over rows. Channels past the tile's last are computed and dropped.
template <int V>
struct ChannelLanes {
    // Calls work(t, part, c) for each item of this warp's; c is the first of this lane's channels.
    template <typename T, class Work>
    static SPIKENORM_DEVICE void for_each_item(const Block<T>& b, Work work) {
        const NormParams& p = b.p;
        const unsigned columns = (b.live + V - 1) / V;
        const unsigned groups = (columns + p.lane_columns - 1) / p.lane_columns;
        const unsigned items = p.steps * groups * p.parts;
        const float per_part = reciprocal_of(static_cast<float>(p.parts));
        const float per_group = reciprocal_of(static_cast<float>(groups));
        const unsigned own = b.lane() & (p.lane_columns - 1);
#pragma unroll 1
        for (unsigned item = b.warp(); item < items; item += b.warps()) {
            const unsigned group = quotient(item, per_part);
            const unsigned t = quotient(group, per_group);
            work(t, item - group * p.parts, ((group - t * groups) * p.lane_columns + own) * V);
        }
    }

    // Calls act(row) for each row of this lane's in a part.
    template <typename T, class Act>
    static SPIKENORM_DEVICE void for_each_row(const Block<T>& b, unsigned part, Act act) {
        const unsigned lane_rows = 32 / b.p.lane_columns;
#pragma unroll 1
        for (unsigned row = part * lane_rows + b.lane() / b.p.lane_columns; row < b.rows; row += b.p.parts * lane_rows) act(row);
    }

    template <typename T, class Make>
    static SPIKENORM_DEVICE void sum(const Block<T>& b, Make make) {
        using P = typename Element<T>::P;
        using Body = decltype(make(0u, 0u));
        const NormParams& p = b.p;
        for_each_item(b, [&](unsigned t, unsigned part, unsigned c) {
            Body body[V];
#pragma unroll
            for (int v = 0; v < V; ++v) body[v] = make(t, smaller(c + v, b.live - 1));
            if (c < b.live) {
                for_each_row(b, part, [&](unsigned row) {
                    const char* here = b.row(0, t, row) + c * static_cast<unsigned>(sizeof(T));
                    P x[V], dy[V];
                    widen_pack(x, read_pack<T, V>(here));
                    widen_pack(dy, read_pack<T, V>(here + p.tensor_bytes));
#pragma unroll
                    for (int v = 0; v < V; ++v) {
                        const P one_x[1] = {x[v]};
                        const P one_dy[1] = {dy[v]};
                        body[v].add(one_x, one_dy, P(p.bound));
                    }
                });
            }
#pragma unroll
            for (int v = 0; v < V; ++v) {
                Pair sums = body[v].sums(P(p.bound));
                for (unsigned mask = p.lane_columns; mask < 32; mask *= 2) {
                    sums.a += shuffle_xor(sums.a, mask);
                    sums.b += shuffle_xor(sums.b, mask);
                }
                if (b.lane() < p.lane_columns && c + v < b.live) {
                    b.partial()[(t * p.tile_channels + c + v) * p.parts + part] = sums;
                }
            }
        });
    }

    template <typename T, class P>
    static SPIKENORM_DEVICE void moments(const Block<T>& b, const P* pivots) {
        const NormParams& p = b.p;
        const auto sum_over_rows = [&](auto value) {
#pragma unroll 1
            for (unsigned mask = p.lane_columns; mask < 32; mask *= 2) value += shuffle_xor(value, mask);
            return value;
        };
        for_each_item(b, [&](unsigned t, unsigned part, unsigned c) {
            const auto each = [&](auto act) {
                if (c >= b.live) return;
                for_each_row(b, part, [&](unsigned row) {
                    P x[V];
                    widen_pack(x, read_pack<T, V>(b.row(0, t, row) + c * static_cast<unsigned>(sizeof(T))));
#pragma unroll
                    for (int v = 0; v < V; ++v) act(v, x[v]);
                });
            };
            P count = P(0);
            SumFromCentre<P> body[V];
            {
                SumFromPivot<P> rough[V];
#pragma unroll
                for (int v = 0; v < V; ++v) rough[v] = {pivots[smaller(c + v, b.live - 1)], P(0), P(0)};
                each([&](int v, P x) {
                    const P one[1] = {x};
                    if (v == 0) count += P(1);
                    rough[v].add(one);
                });
                count = sum_over_rows(count);
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    const SumFromPivot<P> all{rough[v].pivot, sum_over_rows(rough[v].a), sum_over_rows(rough[v].b)};
                    body[v] = all.centred(count);
                }
            }
            each([&](int v, P x) {
                const P one[1] = {x};
                body[v].add(one, P(p.bound));
            });
#pragma unroll
            for (int v = 0; v < V; ++v) {
                const Pair own = body[v].sums(P(p.bound));
                const Pair sums{sum_over_rows(own.a), sum_over_rows(own.b)};
                if (b.lane() < p.lane_columns && c + v < b.live) {
                    b.parts()[(t * p.tile_channels + c + v) * p.parts + part] = body[v].moments(count, pivots[c + v], sums);
                }
            }
        });
    }

    template <int TENSORS, typename T, class Make>
    static SPIKENORM_DEVICE void apply(const Block<T>& b, void* out, Make make) {
        using P = typename Element<T>::P;
        using Body = decltype(make(0u, 0u));
        const NormParams& p = b.p;
        // What aligns copies as wide as a pack aligns packs.
        const bool whole = p.copy_bytes >= V * sizeof(T);
        for_each_item(b, [&](unsigned t, unsigned part, unsigned c) {
            if (c >= b.live) return;
            Body body[V];
#pragma unroll
            for (int v = 0; v < V; ++v) body[v] = make(t, smaller(c + v, b.live - 1));
            T* to = static_cast<T*>(out) + cell_offset(p, t, b.channel + c);
            for_each_row(b, part, [&](unsigned row) {
                const char* here = b.row(0, t, row) + c * static_cast<unsigned>(sizeof(T));
                P x[V], dy[V];
                widen_pack(x, read_pack<T, V>(here));
                if constexpr (TENSORS == 2) widen_pack(dy, read_pack<T, V>(here + p.tensor_bytes));
#pragma unroll
                for (int v = 0; v < V; ++v) x[v] = body[v](x[v], dy[v]);
                T* at = to + row_offset(p, b.first + row);
                if (whole) {
                    narrow_pack<T, V>(at, x);
                } else {
#pragma unroll
                    for (int v = 0; v < V; ++v) {
                        if (c + v < b.live) at[v] = Element<T>::store(x[v]);
                    }
                }
            });
        });
    }
};

}  // namespace spikenorm

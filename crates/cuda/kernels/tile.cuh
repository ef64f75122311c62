// The tile a block holds in shared memory, and how it is filled, summed, changed and written back.
//
// A tile is (all steps of the launch) x (a chunk of the member's rows) x (tile_channels * S values that
// lie side by side in memory: a slab). A row is one sample of the slab, or one of `segments` pieces of
// it where S is too long. Copies are as wide as the slab allows and know nothing of channels; the
// arithmetic in between goes cell by cell, a cell being one (t, c).
#pragma once

#include "numeric.cuh"
#include "params.h"

namespace spikenorm {

using NormParams = SpikenormNormParams;

// Values of one channel in row `row`.
SPIKENORM_DEVICE unsigned row_values(const NormParams& p, unsigned row) {
    if (p.segments == 1) return p.space;
    return row % p.segments == p.segments - 1 ? p.space - row % p.segments * p.segment : p.segment;
}

// Values of one channel in rows 0 .. row.
SPIKENORM_DEVICE double values_before(const NormParams& p, unsigned row) {
    return static_cast<double>(row / p.segments) * p.space +
           static_cast<double>(row % p.segments) * p.segment;
}

// Values of one channel in rows from .. to.
SPIKENORM_DEVICE double values_between(const NormParams& p, unsigned from, unsigned to) {
    if (p.segments == 1) return static_cast<double>(to - from) * p.space;
    return values_before(p, to) - values_before(p, from);
}

// First row of team member `member`; that of `member + 1` is its end.
SPIKENORM_DEVICE unsigned first_row(const NormParams& p, unsigned member) {
    return member * p.rows_each + smaller(member, p.rows_extra);
}

// Elements from the start of a step's samples to row `row` of a channel.
SPIKENORM_DEVICE unsigned long long row_offset(const NormParams& p, unsigned row) {
    if (p.segments == 1) return row * p.row_stride;
    return row / p.segments * p.row_stride + row % p.segments * static_cast<unsigned long long>(p.segment);
}

// Elements from the tensor's start to row 0 of a channel of a step of this launch.
SPIKENORM_DEVICE unsigned long long cell_offset(const NormParams& p, unsigned step, unsigned channel) {
    return (p.first_step + step) * p.step_stride + channel * static_cast<unsigned long long>(p.space);
}

// a / b for a < 2^20, with 1 / b at hand: a division takes twenty instructions, and inner loops need many.
SPIKENORM_DEVICE unsigned quotient(unsigned a, float reciprocal) {
    return static_cast<unsigned>((static_cast<float>(a) + 0.5f) * reciprocal);
}

// A block at work on one tile. Offsets inside it have 32 bits, offsets of rows in memory 64.
template <typename T>
struct Block {
    using P = typename Element<T>::P;

    const NormParams& p;
    char* shared;
    unsigned team, member;
    unsigned lane, warp, warps;
    unsigned channel, live;    // first channel of the tile, and how many
    unsigned begin, end;       // rows of this member
    unsigned first, rows;      // rows of the chunk in shared memory
    unsigned buffer;           // bytes to the buffer it is in

    SPIKENORM_DEVICE explicit Block(const NormParams& params)
        : p(params), shared(dynamic_shared()), team(block_index() / params.team),
          member(block_index() % params.team), lane(thread_index() % 32), warp(thread_index() / 32),
          warps(thread_count() / 32), channel(0), live(0), begin(first_row(params, member)),
          end(first_row(params, member + 1)), first(0), rows(0), buffer(0) {}

    SPIKENORM_DEVICE void enter_tile(unsigned tile) {
        channel = tile * p.tile_channels;
        live = smaller(p.tile_channels, p.channels - channel);
    }
    SPIKENORM_DEVICE unsigned chunks() const { return (end - begin + p.chunk_rows - 1) / p.chunk_rows; }
    SPIKENORM_DEVICE void enter_chunk(unsigned chunk) {
        first = begin + chunk * p.chunk_rows;
        rows = smaller(p.chunk_rows, end - first);
    }

    // Cells are numbered t * tile_channels + c in every array below.
    SPIKENORM_DEVICE unsigned cells() const { return p.steps * p.tile_channels; }
    SPIKENORM_DEVICE Pair* results() const { return reinterpret_cast<Pair*>(shared); }
    SPIKENORM_DEVICE Pair* partial() const { return reinterpret_cast<Pair*>(shared + p.partial_offset); }
    // What all members found together; takes the place of the partial sums.
    SPIKENORM_DEVICE Pair* merged() const { return partial(); }
    SPIKENORM_DEVICE P* row_state() const { return reinterpret_cast<P*>(shared + p.row_offset); }
    template <class Coefficients>
    SPIKENORM_DEVICE Coefficients* coefficients() const {
        return reinterpret_cast<Coefficients*>(shared + p.coefficient_offset);
    }
    SPIKENORM_DEVICE char* row(unsigned tensor, unsigned step, unsigned index) const {
        return shared + p.tile_offset + buffer + tensor * p.tensor_bytes + (step * p.chunk_rows + index) * p.pitch;
    }
};

template <int BYTES>
SPIKENORM_DEVICE void copy_in(char* shared, const char* global) {
    if constexpr (BYTES >= 4) {
        copy_async<BYTES>(shared, global);
    } else {
        *reinterpret_cast<unsigned short*>(shared) = *reinterpret_cast<const unsigned short*>(global);
    }
}

// Starts copying the chunk of a tensor into shared memory, BYTES at a time: 2^copy_shift threads side by side on a
// row.
template <int BYTES, typename T>
SPIKENORM_DEVICE void load_chunk_by(const Block<T>& b, const char* global, unsigned tensor) {
    const NormParams& p = b.p;
    const unsigned lanes = 1u << p.copy_shift;
    const unsigned first = thread_index() & (lanes - 1);
    const unsigned at_once = thread_count() >> p.copy_shift;
    const unsigned rows = p.steps * b.rows;
    const unsigned bytes = static_cast<unsigned>(sizeof(T));
    const float reciprocal = reciprocal_of(static_cast<float>(b.rows));
#pragma unroll 1
    for (unsigned index = thread_index() >> p.copy_shift; index < rows; index += at_once) {
        const unsigned step = quotient(index, reciprocal);
        const unsigned row = index - step * b.rows;
        const char* from = global + (cell_offset(p, step, b.channel) + row_offset(p, b.first + row)) * bytes;
        char* to = b.row(tensor, step, row);
        // Where a row is in several pieces, the tile is one channel.
        const unsigned values = p.segments == 1 ? b.live * p.space : row_values(p, b.first + row);
#pragma unroll 4
        for (unsigned at = first * BYTES; at < values * bytes; at += lanes * BYTES) copy_in<BYTES>(to + at, from + at);
    }
}

template <typename T>
SPIKENORM_DEVICE void load_chunk(const Block<T>& b, const void* tensor_data, unsigned tensor) {
    const char* global = static_cast<const char*>(tensor_data);
    switch (b.p.copy_bytes) {
        case 16: return load_chunk_by<16>(b, global, tensor);
        case 8: return load_chunk_by<8>(b, global, tensor);
        case 4:
            if constexpr (sizeof(T) <= 4) load_chunk_by<4>(b, global, tensor);
            return;
        default:
            if constexpr (sizeof(T) <= 2) load_chunk_by<2>(b, global, tensor);
    }
}

// Sum over the lanes of a warp, the same bits in every lane.
SPIKENORM_DEVICE double warp_sum(double value) {
    for (unsigned mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
    return value;
}

// The two ways to lay threads over a tile. `sum` gives each part of each cell's Pair to partial(), from bodies with
// add(x[], dy[]) and sums(); `apply` writes body(x, dy) to `out`. TENSORS is 1 (x) or 2 (x, dy). `make(t, c)` makes
// the body of a cell; for sums it is given the bound of an accumulator as well.

// Starts loading the chunk. With two buffers, a tile is one chunk and has been on its way since the tile before: what is
// started then is the next tile, so that memory does not rest while this one is computed.
template <int TENSORS, typename T>
SPIKENORM_DEVICE void start_loading(const Block<T>& b, unsigned tile) {
    const NormParams& p = b.p;
    const bool two = p.buffer_bytes != 0;
#pragma unroll 1
    for (unsigned ahead = two && tile != b.team ? 1 : 0; ahead < (two ? 2 : 1); ++ahead) {
        Block<T> there = b;
        if (ahead == 1) {
            if (tile + p.teams >= p.tiles) break;
            there.enter_tile(tile + p.teams);
            there.buffer = p.buffer_bytes - b.buffer;
        }
        load_chunk(there, p.x, 0);
        if constexpr (TENSORS == 2) load_chunk(there, p.dy, 1);
        if (two) copy_commit();
    }
}

// Waits for the chunk, as far as this thread has started it.
template <typename T>
SPIKENORM_DEVICE void finish_loading(const Block<T>& b, unsigned tile) {
    if (b.p.buffer_bytes != 0 && tile + b.p.teams < b.p.tiles) {
        copy_wait_but_last();
    } else {
        copy_wait();
    }
}

// V values of a thread, as they are computed with.
template <typename T, int V>
SPIKENORM_DEVICE void widen_pack(typename Element<T>::P (&values)[V], const char* shared) {
    const Pack<T, V> pack = *reinterpret_cast<const Pack<T, V>*>(shared);
#pragma unroll
    for (int v = 0; v < V; ++v) values[v] = Element<T>::load(pack.value[v]);
}

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
        for (unsigned item = b.warp; item < items; item += b.warps) {
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
        const unsigned start = part * 32 + b.lane;
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

    template <int TENSORS, typename T, class Make>
    static SPIKENORM_DEVICE void sum(const Block<T>& b, Make make) {
        using P = typename Element<T>::P;
        const NormParams& p = b.p;
        const unsigned packs = (b.rows * (p.segment / V) + p.parts * 32 - 1) / (p.parts * 32);
        const P bound = bound_of_sum<P>(packs * V);
        for_each_item(b, [&](unsigned t, unsigned c, unsigned part) {
            auto body = make(t, c, bound);
            const char* first = b.row(0, t, 0) + c * p.segment * static_cast<unsigned>(sizeof(T));
            for_each_pack(b, part, [&](unsigned row, unsigned at) {
                const char* here = first + row * p.pitch + at * static_cast<unsigned>(sizeof(T));
                P x[V], dy[V];
                widen_pack<T, V>(x, here);
                if constexpr (TENSORS == 2) widen_pack<T, V>(dy, here + p.tensor_bytes);
                body.add(x, dy);
            });
            const Pair own = body.sums();
            const Pair sums{warp_sum(own.a), warp_sum(own.b)};
            if (b.lane == 0) b.partial()[(t * p.tile_channels + c) * p.parts + part] = sums;
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
                widen_pack<T, V>(x, here);
                if constexpr (TENSORS == 2) widen_pack<T, V>(dy, here + p.tensor_bytes);
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
        const unsigned own = b.lane & (p.lane_columns - 1);
#pragma unroll 1
        for (unsigned item = b.warp; item < items; item += b.warps) {
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
        for (unsigned row = part * lane_rows + b.lane / b.p.lane_columns; row < b.rows; row += b.p.parts * lane_rows) act(row);
    }

    template <int TENSORS, typename T, class Make>
    static SPIKENORM_DEVICE void sum(const Block<T>& b, Make make) {
        using P = typename Element<T>::P;
        using Body = decltype(make(0u, 0u, P(0)));
        const NormParams& p = b.p;
        const unsigned at_once = p.parts * (32 / p.lane_columns);
        const P bound = bound_of_sum<P>((b.rows + at_once - 1) / at_once);
        for_each_item(b, [&](unsigned t, unsigned part, unsigned c) {
            Body body[V];
#pragma unroll
            for (int v = 0; v < V; ++v) body[v] = make(t, smaller(c + v, b.live - 1), bound);
            if (c < b.live) {
                for_each_row(b, part, [&](unsigned row) {
                    const char* here = b.row(0, t, row) + c * static_cast<unsigned>(sizeof(T));
                    P x[V], dy[V];
                    widen_pack<T, V>(x, here);
                    if constexpr (TENSORS == 2) widen_pack<T, V>(dy, here + p.tensor_bytes);
#pragma unroll
                    for (int v = 0; v < V; ++v) {
                        const P one_x[1] = {x[v]};
                        const P one_dy[1] = {dy[v]};
                        body[v].add(one_x, one_dy);
                    }
                });
            }
#pragma unroll
            for (int v = 0; v < V; ++v) {
                Pair sums = body[v].sums();
                for (unsigned mask = p.lane_columns; mask < 32; mask *= 2) {
                    sums.a += shuffle_xor(sums.a, mask);
                    sums.b += shuffle_xor(sums.b, mask);
                }
                if (b.lane < p.lane_columns && c + v < b.live) {
                    b.partial()[(t * p.tile_channels + c + v) * p.parts + part] = sums;
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
                widen_pack<T, V>(x, here);
                if constexpr (TENSORS == 2) widen_pack<T, V>(dy, here + p.tensor_bytes);
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

// Adds up the parts of a cell, in order.
template <typename T>
SPIKENORM_DEVICE Pair sum_parts(const Block<T>& b, unsigned cell) {
    Pair sums{0.0, 0.0};
#pragma unroll 1
    for (unsigned part = 0; part < b.p.parts; ++part) {
        const Pair& one = b.partial()[cell * b.p.parts + part];
        sums.a += one.a;
        sums.b += one.b;
    }
    return sums;
}

// Calls act(t, c) for each live cell, threads over cells. Such loops take few turns, and unrolled would only fill the
// instruction cache.
template <typename T, class Act>
SPIKENORM_DEVICE void for_each_cell(const Block<T>& b, Act act) {
    const float per_channel = reciprocal_of(static_cast<float>(b.live));
#pragma unroll 1
    for (unsigned i = thread_index(); i < b.p.steps * b.live; i += thread_count()) {
        const unsigned t = quotient(i, per_channel);
        act(t, i - t * b.live);
    }
}

}  // namespace spikenorm

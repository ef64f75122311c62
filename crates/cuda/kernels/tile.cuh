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

// First row of team member `member`; that of `member + 1` is its end.
SPIKENORM_DEVICE unsigned first_row(const NormParams& p, unsigned member) {
    return static_cast<unsigned>(static_cast<unsigned long long>(p.rows) * member / p.team);
}

SPIKENORM_DEVICE unsigned long long row_offset(const NormParams& p, unsigned step, unsigned row, unsigned channel) {
    const unsigned long long slab = static_cast<unsigned long long>(channel) * p.space;
    return (p.first_step + step) * p.step_stride + row / p.segments * p.row_stride + slab +
           row % p.segments * static_cast<unsigned long long>(p.segment);
}

// Counts (step, row, column) up by a fixed number of columns, without dividing per step.
struct Walk {
    unsigned column, row, step;
    unsigned columns, rows;
    unsigned by_column, by_row, by_step;

    SPIKENORM_DEVICE Walk(unsigned start, unsigned stride, unsigned columns_, unsigned rows_)
        : column(start % columns_), row(start / columns_ % rows_), step(start / columns_ / rows_),
          columns(columns_), rows(rows_), by_column(stride % columns_), by_row(stride / columns_ % rows_),
          by_step(stride / columns_ / rows_) {}

    SPIKENORM_DEVICE void advance() {
        column += by_column;
        row += by_row;
        step += by_step;
        if (column >= columns) {
            column -= columns;
            row += 1;
        }
        if (row >= rows) {
            row -= rows;
            step += 1;
        }
    }
};

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

    SPIKENORM_DEVICE explicit Block(const NormParams& params)
        : p(params), shared(dynamic_shared()), team(block_index() / params.team),
          member(block_index() % params.team), lane(thread_index() % 32), warp(thread_index() / 32),
          warps(thread_count() / 32), channel(0), live(0), begin(first_row(params, member)),
          end(first_row(params, member + 1)), first(0), rows(0) {}

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
        return shared + p.tile_offset + tensor * p.tensor_bytes + (step * p.chunk_rows + index) * p.pitch;
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

template <int BYTES>
SPIKENORM_DEVICE void copy_out(char* global, const char* shared) {
    using Word = Pack<unsigned short, BYTES / 2>;
    *reinterpret_cast<Word*>(global) = *reinterpret_cast<const Word*>(shared);
}

// Moves the chunk between memory and shared memory, BYTES at a time.
template <bool OUT, int BYTES, typename T>
SPIKENORM_DEVICE void move_chunk_by(const Block<T>& b, char* global, unsigned tensor) {
    const NormParams& p = b.p;
    const unsigned values = BYTES / static_cast<unsigned>(sizeof(T));
    const unsigned columns = b.live * p.segment / values;
    Walk walk(thread_index(), thread_count(), columns, b.rows);
    for (; walk.step < p.steps; walk.advance()) {
        // Only the last piece of a row in several pieces is shorter, and it has one channel.
        const unsigned row = b.first + walk.row;
        if (p.segments > 1 && walk.column * values >= row_values(p, row)) continue;
        const unsigned long long element = row_offset(p, walk.step, row, b.channel) + walk.column * values;
        char* at = global + element * sizeof(T);
        char* here = b.row(tensor, walk.step, walk.row) + walk.column * BYTES;
        if constexpr (OUT) {
            copy_out<BYTES>(at, here);
        } else {
            copy_in<BYTES>(here, at);
        }
    }
}

template <bool OUT, typename T>
SPIKENORM_DEVICE void move_chunk(const Block<T>& b, const void* tensor_data, unsigned tensor) {
    char* global = const_cast<char*>(static_cast<const char*>(tensor_data));
    switch (b.p.copy_bytes) {
        case 16: return move_chunk_by<OUT, 16>(b, global, tensor);
        case 8: return move_chunk_by<OUT, 8>(b, global, tensor);
        case 4:
            if constexpr (sizeof(T) <= 4) move_chunk_by<OUT, 4>(b, global, tensor);
            return;
        default:
            if constexpr (sizeof(T) <= 2) move_chunk_by<OUT, 2>(b, global, tensor);
    }
}

// Sum over the lanes of a warp, the same bits in every lane.
SPIKENORM_DEVICE double warp_sum(double value) {
    for (unsigned mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
    return value;
}

// The two ways to lay threads over a tile. `sum` gives each part of each cell's Pair to partial(),
// from bodies with add(x, dy) and sums a and b; `apply` replaces the values of the last tensor by
// body(x, dy). TENSORS is 1 (x) or 2 (x, dy). `make(t, c)` makes the body of a cell.

// Lanes over the values of one channel, V at a time (V divides S): a warp takes a part of a cell.
template <int V>
struct SpaceLanes {
    template <int TENSORS, bool SUM, typename T, class Make>
    static SPIKENORM_DEVICE void visit(const Block<T>& b, Make make) {
        using E = Element<T>;
        using P = typename E::P;
        const NormParams& p = b.p;
        const unsigned items = p.steps * b.live * p.parts;
        const unsigned columns = p.segment / V;
        for (unsigned item = b.warp; item < items; item += b.warps) {
            const unsigned part = item % p.parts;
            const unsigned c = item / p.parts % b.live;
            const unsigned t = item / p.parts / b.live;
            auto body = make(t, c);
            Walk walk(part * 32 + b.lane, p.parts * 32, columns, b.rows);
            for (; walk.step == 0; walk.advance()) {
                if (p.segments > 1 && walk.column * V >= row_values(p, b.first + walk.row)) continue;
                const unsigned at = (c * p.segment + walk.column * V) * static_cast<unsigned>(sizeof(T));
                Pack<T, V>* last = reinterpret_cast<Pack<T, V>*>(b.row(TENSORS - 1, t, walk.row) + at);
                const Pack<T, V> x = *reinterpret_cast<const Pack<T, V>*>(b.row(0, t, walk.row) + at);
                Pack<T, V> dy = x;
                if constexpr (TENSORS == 2) dy = *last;
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    const P xv = E::load(x.value[v]);
                    const P dv = E::load(dy.value[v]);
                    if constexpr (SUM) {
                        body.add(xv, dv);
                    } else {
                        dy.value[v] = E::store(body(xv, dv));
                    }
                }
                if constexpr (!SUM) *last = dy;
            }
            if constexpr (SUM) {
                const Pair own = body.sums();
                const Pair sums{warp_sum(own.a), warp_sum(own.b)};
                if (b.lane == 0) b.partial()[(t * p.tile_channels + c) * p.parts + part] = sums;
            }
        }
    }
};

// S = 1: lanes over channels, V neighbours each; `lane_columns` lanes side by side, the other lanes of
// the warp and the parts over rows. Channels past the tile's last are computed and dropped.
template <int V>
struct ChannelLanes {
    template <int TENSORS, bool SUM, typename T, class Make>
    static SPIKENORM_DEVICE void visit(const Block<T>& b, Make make) {
        using E = Element<T>;
        using P = typename E::P;
        using Body = decltype(make(0u, 0u));
        const NormParams& p = b.p;
        const unsigned columns = (b.live + V - 1) / V;
        const unsigned groups = (columns + p.lane_columns - 1) / p.lane_columns;
        const unsigned lane_rows = 32 / p.lane_columns;
        const unsigned items = p.steps * groups * p.parts;
        for (unsigned item = b.warp; item < items; item += b.warps) {
            const unsigned part = item % p.parts;
            const unsigned column = item / p.parts % groups * p.lane_columns + b.lane % p.lane_columns;
            const unsigned t = item / p.parts / groups;
            Body body[V];
#pragma unroll
            for (int v = 0; v < V; ++v) body[v] = make(t, smaller(column * V + v, b.live - 1));
            const unsigned start = part * lane_rows + b.lane / p.lane_columns;
            for (unsigned row = start; row < b.rows && column < columns; row += p.parts * lane_rows) {
                const unsigned at = column * V * static_cast<unsigned>(sizeof(T));
                Pack<T, V>* last = reinterpret_cast<Pack<T, V>*>(b.row(TENSORS - 1, t, row) + at);
                const Pack<T, V> x = *reinterpret_cast<const Pack<T, V>*>(b.row(0, t, row) + at);
                Pack<T, V> dy = x;
                if constexpr (TENSORS == 2) dy = *last;
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    const P xv = E::load(x.value[v]);
                    const P dv = E::load(dy.value[v]);
                    if constexpr (SUM) {
                        body[v].add(xv, dv);
                    } else {
                        dy.value[v] = E::store(body[v](xv, dv));
                    }
                }
                if constexpr (!SUM) *last = dy;
            }
            if constexpr (SUM) {
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    Pair sums = body[v].sums();
                    for (unsigned mask = p.lane_columns; mask < 32; mask *= 2) {
                        sums.a += shuffle_xor(sums.a, mask);
                        sums.b += shuffle_xor(sums.b, mask);
                    }
                    const unsigned c = column * V + v;
                    if (b.lane < p.lane_columns && c < b.live) {
                        b.partial()[(t * p.tile_channels + c) * p.parts + part] = sums;
                    }
                }
            }
        }
    }
};

// Adds up the parts of a cell, in order.
template <typename T>
SPIKENORM_DEVICE Pair sum_parts(const Block<T>& b, unsigned cell) {
    Pair sums{0.0, 0.0};
    for (unsigned part = 0; part < b.p.parts; ++part) {
        const Pair& one = b.partial()[cell * b.p.parts + part];
        sums.a += one.a;
        sums.b += one.b;
    }
    return sums;
}

// Calls act(t, c) for each live cell, threads over cells.
template <typename T, class Act>
SPIKENORM_DEVICE void for_each_cell(const Block<T>& b, Act act) {
    for (unsigned i = thread_index(); i < b.p.steps * b.live; i += thread_count()) act(i / b.live, i % b.live);
}

}  // namespace spikenorm

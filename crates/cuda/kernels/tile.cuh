// The tile a block holds in shared memory, how it is loaded, and how threads go over its cells.
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
    unsigned channel, live;    // first channel of the tile, and how many
    unsigned begin, end;       // rows of this member
    unsigned first, rows;      // rows of the chunk in shared memory

    SPIKENORM_DEVICE explicit Block(const NormParams& params)
        : p(params), shared(dynamic_shared()), team(block_index() / params.team),
          member(block_index() % params.team), channel(0), live(0), begin(first_row(params, member)),
          end(first_row(params, member + 1)), first(0), rows(0) {}

    static SPIKENORM_DEVICE unsigned lane() { return thread_index() % 32; }
    static SPIKENORM_DEVICE unsigned warp() { return thread_index() / 32; }
    static SPIKENORM_DEVICE unsigned warps() { return thread_count() / 32; }

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
    SPIKENORM_DEVICE Pair* results() const { return reinterpret_cast<Pair*>(shared); }
    SPIKENORM_DEVICE Pair* partial() const { return reinterpret_cast<Pair*>(shared + p.partial_offset); }
    // Forward's parts.
    SPIKENORM_DEVICE Moments* parts() const { return reinterpret_cast<Moments*>(shared + p.partial_offset); }
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
#pragma unroll 1
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
template <typename P>
SPIKENORM_DEVICE P warp_sum(P value) {
#pragma unroll
    for (unsigned mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
    return value;
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

// Calls work(t, c, first, apart, store) with up to 32 lanes sharing a cell over `shares` things: a lane takes number
// `first` and every `apart`th after it. Every lane of a warp calls, and `store` tells which one of a cell is to write.
template <typename T, class Work>
SPIKENORM_DEVICE void for_each_shared_cell(const Block<T>& b, unsigned shares, Work work) {
    const NormParams& p = b.p;
    unsigned shift = 0;
    while ((1u << shift) < shares && shift < 5) shift += 1;
    const unsigned apart = 1u << shift;
    const unsigned cells = p.steps * b.live;
    const float per_channel = reciprocal_of(static_cast<float>(b.live));
#pragma unroll 1
    for (unsigned base = b.warp() * 32; base < cells << shift; base += b.warps() * 32) {
        const unsigned index = (base + b.lane()) >> shift;
        const unsigned cell = smaller(index, cells - 1);
        const unsigned t = quotient(cell, per_channel);
        const unsigned first = b.lane() & (apart - 1);
        work(t, cell - t * b.live, first, apart, index < cells && first == 0);
    }
}

// Sum over `width` neighbouring lanes, the same bits in each.
SPIKENORM_DEVICE double sum_over(double value, unsigned width) {
#pragma unroll 1
    for (unsigned mask = 1; mask < width; mask *= 2) value += shuffle_xor(value, mask);
    return value;
}

}  // namespace spikenorm

// What stands around the matrix products of convolutions and linear layers, which cuBLAS computes:
// unfolding windows into columns, folding columns back, moving between tensors [samples, C, plane] and
// matrices [C, samples * plane], biases, and sums over all values of a channel.
//
// Matrices hold P, the dtype of the parameters: half types are widened on the way in and rounded once on
// the way out. A block walks SPIKENORM_UNFOLD_PLACES neighbouring places of one row of one channel, so
// that neighbouring threads touch neighbouring values. Nothing is added up by two threads at once.
#pragma once

#include "numeric.cuh"
#include "unfold.h"

namespace spikenorm {

using UnfoldParams = SpikenormUnfoldParams;

// The block's channel, and its places in that channel's row of `end` places.
struct RowStrip {
    unsigned channel, first, end;

    SPIKENORM_DEVICE RowStrip(const UnfoldParams& p, unsigned length)
        : channel(block_index() / p.strips), first(block_index() % p.strips * SPIKENORM_UNFOLD_PLACES),
          end(smaller(first + SPIKENORM_UNFOLD_PLACES, length)) {}

    template <class Visit>
    SPIKENORM_DEVICE void for_each(Visit visit) const {
#pragma unroll 4
        for (unsigned place = first + thread_index(); place < end; place += thread_count()) visit(place);
    }
};

// in: T [samples, C, pixels]; out: P [C * kernel area, columns]. Padding is zeros.
template <typename T>
SPIKENORM_DEVICE void unfold(const UnfoldParams& p) {
    using E = Element<T>;
    using P = typename E::P;
    const RowStrip strip(p, p.columns);
    const T* images = static_cast<const T*>(p.in) + static_cast<unsigned long long>(strip.channel) * p.pixels;
    const unsigned long long row = static_cast<unsigned long long>(strip.channel) * p.kernel_height * p.kernel_width;
    P* rows = static_cast<P*>(p.out) + row * p.columns;
    strip.for_each([&](unsigned column) {
        const unsigned position = column % p.positions;
        const T* image = images + column / p.positions * p.sample_stride;
        // Above or left of the image these wrap around to numbers no image is as large as.
        const unsigned top = position / p.output_width * p.stride_height - p.padding_height;
        const unsigned left = position % p.output_width * p.stride_width - p.padding_width;
        P* to = rows + column;
        for (unsigned i = 0; i < p.kernel_height; ++i) {
            const unsigned y = top + i;
            for (unsigned j = 0; j < p.kernel_width; ++j) {
                const unsigned x = left + j;
                const bool inside = y < p.input_height && x < p.input_width;
                *to = inside ? E::load(image[y * p.input_width + x]) : P(0);
                to += p.columns;
            }
        }
    });
}

// The transpose of unfold, as a gather: a pixel adds up the columns it was copied to, in their order.
// in: P [C * kernel area, columns]; out: T [samples, C, pixels].
template <typename T>
SPIKENORM_DEVICE void fold(const UnfoldParams& p) {
    using E = Element<T>;
    using P = typename E::P;
    const RowStrip strip(p, p.samples * p.pixels);
    T* images = static_cast<T*>(p.out) + static_cast<unsigned long long>(strip.channel) * p.pixels;
    const unsigned long long row = static_cast<unsigned long long>(strip.channel) * p.kernel_height * p.kernel_width;
    const P* rows = static_cast<const P*>(p.in) + row * p.columns;
    strip.for_each([&](unsigned place) {
        const unsigned sample = place / p.pixels, pixel = place % p.pixels;
        const unsigned y = pixel / p.input_width + p.padding_height;
        const unsigned x = pixel % p.input_width + p.padding_width;
        // Windows that reach this pixel: the first whose end does, to the last whose start does.
        const unsigned top = y < p.kernel_height ? 0 : (y - p.kernel_height) / p.stride_height + 1;
        const unsigned left = x < p.kernel_width ? 0 : (x - p.kernel_width) / p.stride_width + 1;
        const unsigned bottom = smaller(y / p.stride_height + 1, p.output_height);
        const unsigned right = smaller(x / p.stride_width + 1, p.output_width);
        P sum = P(0);
        for (unsigned v = top; v < bottom; ++v) {
            const unsigned i = y - v * p.stride_height;
            for (unsigned h = left; h < right; ++h) {
                const unsigned tap = i * p.kernel_width + (x - h * p.stride_width);
                const unsigned column = sample * p.positions + v * p.output_width + h;
                sum += rows[static_cast<unsigned long long>(tap) * p.columns + column];
            }
        }
        images[sample * p.sample_stride + pixel] = E::store(sum);
    });
}

// in: T [samples, C, positions]; out: P [C, samples * positions].
template <typename T>
SPIKENORM_DEVICE void gather_matrix(const UnfoldParams& p) {
    using E = Element<T>;
    const RowStrip strip(p, p.columns);
    const T* planes = static_cast<const T*>(p.in) + static_cast<unsigned long long>(strip.channel) * p.positions;
    typename E::P* row = static_cast<typename E::P*>(p.out) + static_cast<unsigned long long>(strip.channel) * p.columns;
    strip.for_each([&](unsigned column) {
        row[column] = E::load(planes[column / p.positions * p.sample_stride + column % p.positions]);
    });
}

// The way back, plus the channel's bias. in: P [C, samples * positions]; out: T [samples, C, positions].
// Of one sample, `in` may be `out`.
template <typename T>
SPIKENORM_DEVICE void scatter_matrix(const UnfoldParams& p) {
    using E = Element<T>;
    using P = typename E::P;
    const RowStrip strip(p, p.columns);
    T* planes = static_cast<T*>(p.out) + static_cast<unsigned long long>(strip.channel) * p.positions;
    const P* row = static_cast<const P*>(p.in) + static_cast<unsigned long long>(strip.channel) * p.columns;
    const P bias = p.bias != nullptr ? static_cast<const P*>(p.bias)[strip.channel] : P(0);
    strip.for_each([&](unsigned column) {
        planes[column / p.positions * p.sample_stride + column % p.positions] = E::store(row[column] + bias);
    });
}

// out[i] = in[i] + bias[i % columns] over `count` values. in: P; out: T; they may be the same memory.
template <typename T>
SPIKENORM_DEVICE void add_row_bias(const UnfoldParams& p) {
    using E = Element<T>;
    using P = typename E::P;
    const unsigned long long first = static_cast<unsigned long long>(block_index()) * SPIKENORM_UNFOLD_PLACES;
    const unsigned long long left = p.count - first;
    const unsigned live = left < SPIKENORM_UNFOLD_PLACES ? static_cast<unsigned>(left) : SPIKENORM_UNFOLD_PLACES;
    const unsigned column = static_cast<unsigned>(first % p.columns);
    const P* in = static_cast<const P*>(p.in) + first;
    T* out = static_cast<T*>(p.out) + first;
    const P* bias = static_cast<const P*>(p.bias);
#pragma unroll 4
    for (unsigned i = thread_index(); i < live; i += thread_count()) {
        out[i] = E::store(in[i] + (bias != nullptr ? bias[(column + i) % p.columns] : P(0)));
    }
}

// Sums over samples and positions, of one group of them: in: T [samples, C, positions];
// out: double [groups, C]. `lanes` channels side by side; the threads of a channel take turns.
template <typename T>
SPIKENORM_DEVICE void sum_channels(const UnfoldParams& p) {
    double* sums = reinterpret_cast<double*>(dynamic_shared());
    const unsigned group = block_index() % p.groups;
    const unsigned channel = block_index() / p.groups * p.lanes + thread_index() % p.lanes;
    const unsigned part = thread_index() / p.lanes, parts = thread_count() / p.lanes;
    const unsigned long long first = group * p.group_count;
    const unsigned long long left = p.count - first;
    const unsigned long long end = first + (left < p.group_count ? left : p.group_count);
    const unsigned long long start = first + part;
    const unsigned sample_step = parts / p.positions, position_step = parts % p.positions;
    unsigned long long sample = start / p.positions;
    unsigned position = static_cast<unsigned>(start % p.positions);
    double sum = 0.0;
    if (channel < p.channels) {
        const T* planes = static_cast<const T*>(p.in) + static_cast<unsigned long long>(channel) * p.positions;
#pragma unroll 4
        for (unsigned long long i = start; i < end; i += parts) {
            sum += Element<T>::load(planes[sample * p.sample_stride + position]);
            sample += sample_step;
            position += position_step;
            if (position >= p.positions) {
                position -= p.positions;
                ++sample;
            }
        }
    }
    sums[thread_index()] = sum;
    for (unsigned half = parts / 2; half > 0; half /= 2) {
        block_sync();
        if (part < half) sums[thread_index()] += sums[thread_index() + half * p.lanes];
    }
    double* out = static_cast<double*>(p.out) + static_cast<unsigned long long>(group) * p.channels;
    if (part == 0 && channel < p.channels) out[channel] = sums[thread_index()];
}

// in: double [groups, C]; out: P [C], the groups added up in order.
template <typename P>
SPIKENORM_DEVICE void total_channels(const UnfoldParams& p) {
    const unsigned channel = block_index() * thread_count() + thread_index();
    if (channel >= p.channels) return;
    const double* parts = static_cast<const double*>(p.in) + channel;
    double sum = 0.0;
    for (unsigned group = 0; group < p.groups; ++group) sum += parts[static_cast<unsigned long long>(group) * p.channels];
    static_cast<P*>(p.out)[channel] = static_cast<P>(sum);
}

}  // namespace spikenorm

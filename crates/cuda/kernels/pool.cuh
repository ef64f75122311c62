// Average and maximum pooling. Forward: a thread per value of the output. Backward: a thread per value of the
// input, which gathers from the windows that cover it, in order.
#pragma once

#include "span.cuh"

namespace spikenorm {

using PoolParams = SpikenormPoolParams;

// One axis of the windows.
struct Axis {
    unsigned size, windows, kernel, stride, padding;

    // The part of window `at` that lies in the image: places `from` to `to` of the window, of which `from` is
    // at image coordinate `start`.
    struct Part {
        unsigned from, to, start;
    };
    SPIKENORM_DEVICE Part part(unsigned at) const {
        const unsigned first = at * stride, end = size + padding;
        const unsigned from = padding > first ? padding - first : 0;
        const unsigned to = smaller(kernel, end > first ? end - first : 0);
        return {from, to, first + from - padding};
    }

    // Windows `first` to `end` cover image coordinate `at`, which is at place at + padding - window * stride.
    struct Cover {
        unsigned first, end;
    };
    SPIKENORM_DEVICE Cover cover(unsigned at) const {
        const unsigned padded = at + padding;
        return {padded >= kernel ? (padded - kernel) / stride + 1 : 0, smaller(windows, padded / stride + 1)};
    }
};

SPIKENORM_DEVICE Axis vertical(const PoolParams& p) {
    return {p.height, p.output_height, p.kernel_height, p.stride_height, p.padding_height};
}
SPIKENORM_DEVICE Axis horizontal(const PoolParams& p) {
    return {p.width, p.output_width, p.kernel_width, p.stride_width, p.padding_width};
}

// Calls body(index, plane, row, column) for every value of `planes` planes.
template <class Body>
SPIKENORM_DEVICE void for_each_pixel(Index planes, unsigned height, unsigned width, const Body& body) {
    const Index plane = static_cast<Index>(height) * width;
    for (Index i = grid_thread(); i < planes * plane; i += grid_threads()) {
        const Index row = i / width;
        body(i, i / plane, static_cast<unsigned>(row % height), static_cast<unsigned>(i - row * width));
    }
}

template <typename T>
SPIKENORM_DEVICE void average_forward(const PoolParams& p) {
    using E = Element<T>;
    using P = typename E::P;
    const P share = static_cast<P>(p.share);
    for_each_pixel(p.planes, p.output_height, p.output_width, [&](Index at, Index plane, unsigned y, unsigned x) {
        const Axis::Part v = vertical(p).part(y), h = horizontal(p).part(x);
        const T* image = static_cast<const T*>(p.in) + plane * p.height * p.width;
        P sum = P(0);
        for (unsigned i = v.from; i < v.to; ++i) {
            const T* row = image + static_cast<Index>(v.start + i - v.from) * p.width + h.start;
            for (unsigned j = h.from; j < h.to; ++j) sum += E::load(row[j - h.from]);
        }
        static_cast<T*>(p.out)[at] = E::store(sum * share);
    });
}

template <typename T>
SPIKENORM_DEVICE void average_backward(const PoolParams& p) {
    using E = Element<T>;
    using P = typename E::P;
    const P share = static_cast<P>(p.share);
    for_each_pixel(p.planes, p.height, p.width, [&](Index at, Index plane, unsigned y, unsigned x) {
        const Axis::Cover v = vertical(p).cover(y), h = horizontal(p).cover(x);
        P sum = P(0);
        for (unsigned i = v.first; i < v.end; ++i) {
            const T* row = static_cast<const T*>(p.in) + (plane * p.output_height + i) * p.output_width;
            for (unsigned j = h.first; j < h.end; ++j) sum += E::load(row[j]) * share;
        }
        static_cast<T*>(p.out)[at] = E::store(sum);
    });
}

template <typename T>
SPIKENORM_DEVICE void maximum_forward(const PoolParams& p) {
    using E = Element<T>;
    using P = typename E::P;
    for_each_pixel(p.planes, p.output_height, p.output_width, [&](Index at, Index plane, unsigned y, unsigned x) {
        const Axis::Part v = vertical(p).part(y), h = horizontal(p).part(x);
        const T* image = static_cast<const T*>(p.in) + plane * p.height * p.width;
        // A window never lies in the padding alone, so there is a first value.
        unsigned place = v.from * p.kernel_width + h.from;
        T kept = image[static_cast<Index>(v.start) * p.width + h.start];
        P best = E::load(kept);
        for (unsigned i = v.from; i < v.to; ++i) {
            const T* row = image + static_cast<Index>(v.start + i - v.from) * p.width + h.start;
            for (unsigned j = h.from; j < h.to; ++j) {
                const P value = E::load(row[j - h.from]);
                // NaN wins, and stays, because no value compares above it.
                if (value > best || value != value) {
                    best = value;
                    kept = row[j - h.from];
                    place = i * p.kernel_width + j;
                }
            }
        }
        static_cast<T*>(p.out)[at] = kept;
        if (p.indices == nullptr) return;
        if (p.index_bytes == 1) {
            static_cast<unsigned char*>(p.indices)[at] = static_cast<unsigned char>(place);
        } else {
            static_cast<unsigned*>(p.indices)[at] = place;
        }
    });
}

template <typename T>
SPIKENORM_DEVICE void maximum_backward(const PoolParams& p) {
    using E = Element<T>;
    using P = typename E::P;
    for_each_pixel(p.planes, p.height, p.width, [&](Index at, Index plane, unsigned y, unsigned x) {
        const Axis::Cover v = vertical(p).cover(y), h = horizontal(p).cover(x);
        P sum = P(0);
        for (unsigned i = v.first; i < v.end; ++i) {
            const unsigned above = (y + p.padding_height - i * p.stride_height) * p.kernel_width;
            const Index row = (plane * p.output_height + i) * p.output_width;
            for (unsigned j = h.first; j < h.end; ++j) {
                const unsigned place = above + x + p.padding_width - j * p.stride_width;
                const unsigned winner = p.index_bytes == 1 ? static_cast<const unsigned char*>(p.indices)[row + j]
                                                           : static_cast<const unsigned*>(p.indices)[row + j];
                if (winner == place) sum += E::load(static_cast<const T*>(p.in)[row + j]);
            }
        }
        static_cast<T*>(p.out)[at] = E::store(sum);
    });
}

}  // namespace spikenorm

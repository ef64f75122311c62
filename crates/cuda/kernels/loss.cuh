// Cross entropy of softmax logits decoded by their mean over time, and its gradient, in float64 and in a fixed
// order, and how many samples are classified as labelled. A block takes one sample after another; the last of all
// blocks adds the samples up.
#pragma once

#include "scalar.cuh"
#include "span.cuh"
#include "team.cuh"

namespace spikenorm {

using LossParams = SpikenormLossParams;

// The values of all threads folded in the same order in each. Every thread of the block must call.
template <class Fold>
SPIKENORM_DEVICE double fold_block(double value, const Fold& fold) {
    double* shared = reinterpret_cast<double*>(dynamic_shared());
    for (unsigned mask = 16; mask > 0; mask /= 2) value = fold(value, shuffle_xor(value, mask));
    if (thread_index() % 32 == 0) shared[thread_index() / 32] = value;
    block_sync();
    value = shared[0];
    for (unsigned warp = 1; warp < thread_count() / 32; ++warp) value = fold(value, shared[warp]);
    block_sync();
    return value;
}

SPIKENORM_DEVICE double fold_sum(double value) {
    return fold_block(value, [](double a, double b) { return a + b; });
}

SPIKENORM_DEVICE double fold_smallest(double value) {
    return fold_block(value, [](double a, double b) { return b < a ? b : a; });
}

SPIKENORM_DEVICE long long label_of(const LossParams& p, Index sample) {
    if (p.label_bytes == 1) return static_cast<const unsigned char*>(p.labels)[sample];
    return static_cast<const long long*>(p.labels)[sample];
}

SPIKENORM_DEVICE bool is_class(const LossParams& p, long long label) {
    return label >= 0 && static_cast<Index>(label) < p.classes;
}

// Mean over time.
template <typename T>
SPIKENORM_DEVICE double decoded(const LossParams& p, Index sample, Index label) {
    const Index step = p.samples * p.classes;
    const T* at = static_cast<const T*>(p.logits) + sample * p.classes + label;
    double sum = 0.0;
    for (Index t = 0; t < p.steps; ++t) sum += Scalar<T>::widen(at[t * step]);
    return sum / static_cast<double>(p.steps);
}

template <typename T>
SPIKENORM_DEVICE void write_gradient(const LossParams& p, Index sample, Index label, double value) {
    const Index step = p.samples * p.classes;
    T* at = static_cast<T*>(p.grad) + sample * p.classes + label;
    const T stored = Scalar<T>::narrow(value);
    for (Index t = 0; t < p.steps; ++t) at[t * step] = stored;
}

template <typename T>
SPIKENORM_DEVICE void sample_loss(const LossParams& p, Index sample) {
    const long long label = label_of(p, sample);
    if (!is_class(p, label)) {
        for (Index c = thread_index(); c < p.classes; c += thread_count()) write_gradient<T>(p, sample, c, 0.0);
        if (thread_index() == 0) p.losses[sample] = p.losses[p.samples + sample] = 0.0;
        return;
    }
    double largest = bits_to_float(0xff800000u);  // minus infinity
    const auto larger = [](double a, double b) { return b > a ? b : a; };
    for (Index c = thread_index(); c < p.classes; c += thread_count()) largest = larger(largest, decoded<T>(p, sample, c));
    largest = fold_block(largest, larger);
    double total = 0.0, first = static_cast<double>(p.classes);
    for (Index c = thread_index(); c < p.classes; c += thread_count()) {
        const double logit = decoded<T>(p, sample, c);
        total += exponential(logit - largest);
        if (logit == largest && c < first) first = static_cast<double>(c);
    }
    total = fold_sum(total);
    first = fold_smallest(first);
    const double scale = 1.0 / static_cast<double>(p.samples * p.steps);
    for (Index c = thread_index(); c < p.classes; c += thread_count()) {
        const double share = exponential(decoded<T>(p, sample, c) - largest) / total * scale;
        write_gradient<T>(p, sample, c, c == static_cast<Index>(label) ? share - scale : share);
    }
    if (thread_index() != 0) return;
    p.losses[sample] = logarithm(total) - (decoded<T>(p, sample, label) - largest);
    p.losses[p.samples + sample] = first == static_cast<double>(label) ? 1.0 : 0.0;
}

template <typename T>
SPIKENORM_DEVICE void cross_entropy(const LossParams& p) {
    for (Index sample = block_index(); sample < p.samples; sample += block_count()) sample_loss<T>(p, sample);
    // Behind the warps' sums.
    unsigned* flag = reinterpret_cast<unsigned*>(dynamic_shared() + thread_count() / 32 * sizeof(double));
    if (!is_last_block(p.ticket, block_count(), flag)) return;
    double sum = 0.0, correct = 0.0, bad = static_cast<double>(p.samples);
    for (Index sample = thread_index(); sample < p.samples; sample += thread_count()) {
        sum += load_fresh(p.losses + sample);
        correct += load_fresh(p.losses + p.samples + sample);
        if (!is_class(p, label_of(p, sample)) && sample < bad) bad = static_cast<double>(sample);
    }
    sum = fold_sum(sum);
    correct = fold_sum(correct);
    bad = fold_smallest(bad);
    if (thread_index() != 0) return;
    p.report[0] = sum / static_cast<double>(p.samples);
    p.report[1] = bad < static_cast<double>(p.samples) ? bad : -1.0;
    p.report[2] = correct;
}

}  // namespace spikenorm

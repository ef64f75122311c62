// Optimiser steps (the update rules are in crates/core/src/kit/optim.rs): one sweep over a parameter, its
// gradient and its moments.
#pragma once

#include "span.cuh"
#include "team.cuh"

namespace spikenorm {

using SgdParams = SpikenormSgdParams;
using AdamParams = SpikenormAdamParams;

template <typename P>
SPIKENORM_DEVICE void sgd(const SgdParams& p) {
    const P lr = static_cast<P>(p.lr), decay = static_cast<P>(p.decay);
    const P keep = static_cast<P>(p.keep), take = static_cast<P>(p.take), look_ahead = static_cast<P>(p.look_ahead);
    for_each_pack<kWidest<P>>(p.span, [&](auto width, Index at) {
        constexpr int V = decltype(width)::value;
        Pack<P, V> parameter = load_pack<P, V>(p.parameter, at);
        Pack<P, V> change = load_pack<P, V>(p.grad, at);
        for (int v = 0; v < V; ++v) change.value[v] += decay * parameter.value[v];
        if (p.momentum != nullptr) {
            Pack<P, V> momentum = change;
            // What a fresh momentum holds may be NaN, which a factor of zero would keep.
            if (!p.first) {
                momentum = load_pack<P, V>(p.momentum, at);
                for (int v = 0; v < V; ++v) momentum.value[v] = keep * momentum.value[v] + take * change.value[v];
            }
            store_pack(p.momentum, at, momentum);
            for (int v = 0; v < V; ++v) {
                change.value[v] = p.nesterov ? change.value[v] + look_ahead * momentum.value[v] : momentum.value[v];
            }
        }
        for (int v = 0; v < V; ++v) parameter.value[v] -= lr * change.value[v];
        store_pack(p.parameter, at, parameter);
    });
}

template <typename P>
SPIKENORM_DEVICE void adam(const AdamParams& p) {
    // Bias corrections in float64, once per block: powers are slow.
    double* corrections = reinterpret_cast<double*>(dynamic_shared());
    if (thread_index() == 0) {
        const double step = static_cast<double>(*p.step + 1);
        corrections[0] = p.lr / (1.0 - power(p.beta1, step));
        corrections[1] = square_root(1.0 - power(p.beta2, step));
    }
    block_sync();
    const P step_size = static_cast<P>(corrections[0]), root = static_cast<P>(corrections[1]);
    const P fresh1 = static_cast<P>(1.0 - p.beta1), fresh2 = static_cast<P>(1.0 - p.beta2);
    const P keep2 = static_cast<P>(p.beta2), eps = static_cast<P>(p.eps);
    const P into_grad = static_cast<P>(p.into_grad), shrink = static_cast<P>(p.shrink);
    for_each_pack<kWidest<P>>(p.span, [&](auto width, Index at) {
        constexpr int V = decltype(width)::value;
        Pack<P, V> parameter = load_pack<P, V>(p.parameter, at);
        const Pack<P, V> grad = load_pack<P, V>(p.grad, at);
        Pack<P, V> first = load_pack<P, V>(p.first_moment, at), second = load_pack<P, V>(p.second_moment, at);
        for (int v = 0; v < V; ++v) {
            P &m = first.value[v], &s = second.value[v], &value = parameter.value[v];
            const P g = grad.value[v] + into_grad * value;
            m += fresh1 * (g - m);
            s = keep2 * s + fresh2 * g * g;
            value = shrink * value - step_size * m / (square_root(s) / root + eps);
        }
        store_pack(p.first_moment, at, first);
        store_pack(p.second_moment, at, second);
        store_pack(p.parameter, at, parameter);
    });
    // Every block has read the count by the time the last one is known.
    unsigned* flag = reinterpret_cast<unsigned*>(corrections + 2);
    if (is_last_block(p.ticket, block_count(), flag) && thread_index() == 0) *p.step += 1;
}

}  // namespace spikenorm

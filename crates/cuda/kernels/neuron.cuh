// Integrate-and-fire neurons over all time steps: charge, fire, reset (the formulas are in
// crates/core/src/kit/neuron.rs). A thread owns a few neighbouring neurons and walks t with their voltages, or
// the gradients of those, in registers, so that memory is read once and written once.
#pragma once

#include "span.cuh"

namespace spikenorm {

using NeuronParams = SpikenormNeuronParams;

// Neighbours of a thread: as wide as the voltages allow.
template <typename T>
constexpr int kNeighbours = kWidest<typename Element<T>::P>;

// Steps whose values are asked for together, since the recurrence waits for each.
constexpr unsigned kForwardAhead = 4;
constexpr unsigned kBackwardAhead = 2;

// In this order of operations, so that a voltage at the threshold falls on the same side everywhere.
template <typename P>
SPIKENORM_DEVICE P charged(const NeuronParams& p, P v, P x) {
    const P rest = static_cast<P>(p.rest), tau = static_cast<P>(p.tau);
    if (p.charge == SPIKENORM_CHARGE_INTEGRATE) return v + x;
    if (p.charge == SPIKENORM_CHARGE_DECAY_INPUT) return v + (x - (v - rest)) / tau;
    return v - (v - rest) / tau + x;
}

template <typename T>
SPIKENORM_DEVICE void neuron_forward(const NeuronParams& p) {
    using E = Element<T>;
    using P = typename E::P;
    const P threshold = static_cast<P>(p.threshold), rest = static_cast<P>(p.rest);
    const T none = E::store(P(0)), one = E::store(P(1));
    for_each_pack<kNeighbours<T>>(p.span, [&](auto width, Index at) {
        constexpr int V = decltype(width)::value;
        Pack<P, V> state;
        for (int v = 0; v < V; ++v) state.value[v] = rest;
        if (p.state != nullptr) state = load_pack<P, V>(p.state, at);
        for (Index first = 0; first < p.steps; first += kForwardAhead) {
            Pack<T, V> x[kForwardAhead];
#pragma unroll
            for (unsigned i = 0; i < kForwardAhead; ++i) {
                if (first + i < p.steps) x[i] = load_pack<T, V>(p.in, (first + i) * p.span.count + at);
            }
#pragma unroll
            for (unsigned i = 0; i < kForwardAhead; ++i) {
                if (first + i >= p.steps) break;
                const Index step = (first + i) * p.span.count + at;
                for (int v = 0; v < V; ++v) state.value[v] = charged(p, state.value[v], E::load(x[i].value[v]));
                if (p.voltages != nullptr) store_pack(p.voltages, step, state);
                Pack<T, V> spikes;
                for (int v = 0; v < V; ++v) {
                    P& voltage = state.value[v];
                    const bool fires = voltage >= threshold;
                    spikes.value[v] = fires ? one : none;
                    if (fires) voltage = p.hard_reset ? rest : voltage - threshold;
                }
                store_pack(p.out, step, spikes);
            }
        }
        store_pack(p.state_out, at, state);
    });
}

// Derivative of the surrogate at h - threshold.
template <typename P>
SPIKENORM_DEVICE P surrogate_derivative(const NeuronParams& p, P z) {
    const P scaled = static_cast<P>(p.slope) * z, height = static_cast<P>(p.height);
    if (p.surrogate == SPIKENORM_SURROGATE_ATAN) return height / (P(1) + scaled * scaled);
    // s(a)(1 - s(a)) is even in a; e^-|a| cannot overflow.
    const P e = exponential(scaled > P(0) ? -scaled : scaled);
    return height * e / ((P(1) + e) * (P(1) + e));
}

template <typename T>
SPIKENORM_DEVICE void neuron_backward(const NeuronParams& p) {
    using E = Element<T>;
    using P = typename E::P;
    const P threshold = static_cast<P>(p.threshold), rest = static_cast<P>(p.rest);
    const P to_input = static_cast<P>(p.to_input), to_state = static_cast<P>(p.to_state);
    for_each_pack<kNeighbours<T>>(p.span, [&](auto width, Index at) {
        constexpr int V = decltype(width)::value;
        Pack<P, V> carry;
        for (int v = 0; v < V; ++v) carry.value[v] = P(0);
        if (p.state != nullptr) carry = load_pack<P, V>(p.state, at);
        // Steps end - 1, end - 2, ... of each round.
        for (Index end = p.steps; end > 0; end -= end < kBackwardAhead ? end : kBackwardAhead) {
            Pack<T, V> dy[kBackwardAhead];
            Pack<P, V> h[kBackwardAhead];
#pragma unroll
            for (unsigned i = 0; i < kBackwardAhead; ++i) {
                if (i >= end) break;
                const Index step = (end - 1 - i) * p.span.count + at;
                dy[i] = load_pack<T, V>(p.in, step);
                h[i] = load_pack<P, V>(p.voltages, step);
            }
#pragma unroll
            for (unsigned i = 0; i < kBackwardAhead; ++i) {
                if (i >= end) break;
                Pack<T, V> dx;
                for (int v = 0; v < V; ++v) {
                    const P voltage = h[i].value[v], z = voltage - threshold;
                    const P g = surrogate_derivative(p, z);
                    // What the reset passes on of h itself, and what firing changes.
                    P through = z >= P(0) && p.hard_reset ? P(0) : P(1);
                    if (!p.detach_reset) through += (p.hard_reset ? rest - voltage : -threshold) * g;
                    const P delta = E::load(dy[i].value[v]) * g + carry.value[v] * through;
                    dx.value[v] = E::store(delta * to_input);
                    carry.value[v] = delta * to_state;
                }
                store_pack(p.out, (end - 1 - i) * p.span.count + at, dx);
            }
        }
        store_pack(p.state_out, at, carry);
    });
}

}  // namespace spikenorm

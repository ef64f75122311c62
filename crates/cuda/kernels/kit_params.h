// What the host hands a kernel of the training kit: plain data, mirrored by src/kit/params.rs.
// Both sides assert the same size and offsets; change them together.
#pragma once

#define SPIKENORM_CHARGE_INTEGRATE 0u
#define SPIKENORM_CHARGE_DECAY_INPUT 1u
#define SPIKENORM_CHARGE_LEAK 2u

#define SPIKENORM_SURROGATE_ATAN 0u
#define SPIKENORM_SURROGATE_SIGMOID 1u

// How `count` values are moved: one by one up to `head`, then `packs` vectors, then one by one again.
struct SpikenormSpan {
    unsigned long long count;
    unsigned long long head;
    unsigned long long packs;
};

struct SpikenormElementwiseParams {
    const void* a;
    const void* b;
    void* out;
    double value;
    SpikenormSpan span;
};

struct SpikenormNeuronParams {
    const void* in;     // x, or dy
    void* out;          // spikes, or dx
    const void* state;  // P: voltage before, or gradient of the voltage after; null: rest, or 0
    void* state_out;    // P: voltage after, or gradient of the voltage before
    void* voltages;     // P [T, neurons], before reset: written by forward (null: not wanted), read by backward

    double tau;
    double threshold;
    double rest;        // reset voltage; 0 under soft reset
    double slope;       // of the surrogate's argument
    double height;      // of the surrogate
    double to_input;    // dh/dx
    double to_state;    // dh/dv

    SpikenormSpan span; // of the neurons of a step
    unsigned long long steps;
    unsigned int charge;
    unsigned int surrogate;
    unsigned int hard_reset;
    unsigned int detach_reset;
};

struct SpikenormPoolParams {
    const void* in;     // x, or dy
    void* out;          // y, or dx
    void* indices;      // place of each maximum in its window; null: not wanted
    unsigned long long planes;
    double share;       // 1/(kernel area)
    unsigned int height, width;
    unsigned int output_height, output_width;
    unsigned int kernel_height, kernel_width;
    unsigned int stride_height, stride_width;
    unsigned int padding_height, padding_width;
    unsigned int index_bytes;  // 1 or 4
    unsigned int reserved;
};

struct SpikenormLossParams {
    const void* logits;    // [T, N, K]
    const void* labels;    // [N]
    void* grad;            // like the logits
    double* report;        // [3]: loss, first sample whose label is no class or -1, samples classified as labelled
    double* losses;        // [2, N], workspace: losses, and 1 where classified as labelled
    unsigned int* ticket;  // zero before the first launch
    unsigned long long steps;
    unsigned long long samples;
    unsigned long long classes;
    unsigned int label_bytes;  // 1: uint8, 8: int64
    unsigned int reserved;
};

struct SpikenormSgdParams {
    void* parameter;
    const void* grad;
    void* momentum;     // null: none
    double lr;
    double decay;
    double keep;        // what is left of the old momentum
    double take;        // what the gradient adds to it
    double look_ahead;  // factor of the momentum in a Nesterov step
    SpikenormSpan span;
    unsigned int nesterov;
    unsigned int first; // the momentum holds nothing yet
};

struct SpikenormAdamParams {
    void* parameter;
    const void* grad;
    void* first_moment;
    void* second_moment;
    long long* step;       // steps before this one; the last block adds one
    unsigned int* ticket;  // zero before the first launch
    double lr;
    double beta1;
    double beta2;
    double eps;
    double into_grad;      // weight decay, added to the gradient
    double shrink;         // what decoupled weight decay leaves of the parameter
    SpikenormSpan span;
};

#if defined(__cplusplus)
#define SPIKENORM_AT(type, field, offset) \
    static_assert(__builtin_offsetof(type, field) == (offset), #type "." #field)
static_assert(sizeof(SpikenormSpan) == 24, "SpikenormSpan");
SPIKENORM_AT(SpikenormElementwiseParams, value, 24);
static_assert(sizeof(SpikenormElementwiseParams) == 56, "SpikenormElementwiseParams");
SPIKENORM_AT(SpikenormNeuronParams, tau, 40);
SPIKENORM_AT(SpikenormNeuronParams, span, 96);
SPIKENORM_AT(SpikenormNeuronParams, charge, 128);
static_assert(sizeof(SpikenormNeuronParams) == 144, "SpikenormNeuronParams");
SPIKENORM_AT(SpikenormPoolParams, share, 32);
SPIKENORM_AT(SpikenormPoolParams, index_bytes, 80);
static_assert(sizeof(SpikenormPoolParams) == 88, "SpikenormPoolParams");
SPIKENORM_AT(SpikenormLossParams, steps, 48);
SPIKENORM_AT(SpikenormLossParams, label_bytes, 72);
static_assert(sizeof(SpikenormLossParams) == 80, "SpikenormLossParams");
SPIKENORM_AT(SpikenormSgdParams, lr, 24);
SPIKENORM_AT(SpikenormSgdParams, nesterov, 88);
static_assert(sizeof(SpikenormSgdParams) == 96, "SpikenormSgdParams");
SPIKENORM_AT(SpikenormAdamParams, lr, 48);
SPIKENORM_AT(SpikenormAdamParams, span, 96);
static_assert(sizeof(SpikenormAdamParams) == 120, "SpikenormAdamParams");
#undef SPIKENORM_AT
#endif

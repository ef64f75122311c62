// What the host hands a kernel: plain data, no includes, mirrored by src/params.rs.
// Both sides assert the same size and offsets; change them together.
#pragma once

// Which parts of a pass one launch does. Both: statistics, team barrier, apply, in one launch.
// Sums and Apply are the halves of a pass whose team cannot be co-resident; Apply alone is also the
// forward under running statistics.
#define SPIKENORM_PHASE_BOTH 0u
#define SPIKENORM_PHASE_SUMS 1u
#define SPIKENORM_PHASE_APPLY 2u

// How the blocks of a team meet.
#define SPIKENORM_SYNC_NONE 0u         // a team of one
#define SPIKENORM_SYNC_CLUSTER 1u      // hardware cluster, slots in distributed shared memory
#define SPIKENORM_SYNC_COOPERATIVE 2u  // all blocks co-resident, barrier and slots in global memory

struct SpikenormNormParams {
    // Tensors. P is float for half types, else the type of x.
    const void* x;
    const void* dy;
    void* out;              // y, or dx
    const void* weight;     // P [rows, C]; null is 1
    const void* bias;       // P [rows, C]; null is 0
    const void* scale;      // P [T]; null is 1
    void* statistics;       // P [3, rows, C]: mean high, mean low, 1/sqrt(var + eps)
    void* running_mean;     // P [rows, C]; null where nothing is moved or read
    void* running_var;
    long long* counters;    // num_batches_tracked, one per statistics row; null where nothing is moved
    void* weight_out;       // P [rows, C]; forward: a copy for backward; backward: the gradient; null: not wanted
    void* bias_out;
    void* scale_out;        // P [T]
    // Workspace.
    double* slots;          // [T, C, K, 2]: what each member found per cell
    double* row_means;      // [2, rows, C]: m1 and m2 of a backward in two launches
    double* scale_terms;    // [T, C]
    unsigned int* barriers; // one ticket, then one per team; zero before the first launch

    double eps;
    double momentum;        // weight of the new running statistics; NaN: 1 / num_batches_tracked
    double per_cell;        // 1 / (N*S)
    double per_step;        // 1 / the steps of a statistics row
    double per_freedom;     // 1 / (the values of a statistics row - 1)

    // Shape, in elements.
    unsigned long long step_stride;  // N*C*S
    unsigned long long row_stride;   // C*S
    unsigned int channels;
    unsigned int space;              // S
    unsigned int segment;            // a row of S values is cut into `segments` of this length
    unsigned int segments;
    unsigned int rows;               // N*segments
    unsigned int all_steps;          // T
    unsigned int first_step;         // of this launch
    unsigned int steps;              // in this launch

    // Row strides of [rows, C] tensors over t: C where per step, 0 where shared.
    unsigned int statistics_stride;
    unsigned int weight_stride;
    unsigned int bias_stride;
    unsigned int batch_statistics;   // 0: running statistics, k1 = k2 = 0 in backward

    // Plan.
    unsigned int phase;
    unsigned int sync;
    unsigned int team;               // K
    unsigned int teams;
    unsigned int tiles;              // ceil(C / tile_channels)
    unsigned int tile_channels;      // Cb
    unsigned int chunk_rows;
    unsigned int pitch;              // bytes from row to row in shared memory
    unsigned int rows_each;          // rows of a member at least; the first `rows_extra` have one more
    unsigned int rows_extra;
    unsigned int copy_bytes;         // width of one copy
    unsigned int copy_shift;         // 2^this threads copy a row together
    unsigned int parts;              // warps that share a cell
    unsigned int lane_columns;       // lanes side by side over channels

    // Offsets in dynamic shared memory.
    unsigned int partial_offset;
    unsigned int coefficient_offset;
    unsigned int row_offset;
    unsigned int tile_offset;
    unsigned int tensor_bytes;       // from the tile of x to the tile of dy
    float bound;                     // of an accumulator: a power of two, at least four times what a thread adds up
};

struct SpikenormNeuNormParams {
    const void* in;         // x, or dy
    void* out;              // y, or dx
    const void* weight;     // P [C, HW] or [1, HW]
    const void* state;      // P [N, HW]: forward's state before, backward's gradient after; null is 0
    void* state_out;        // P [N, HW]: forward's state after, backward's gradient before
    void* states;           // P [T, N, HW]: written by forward (null: not wanted), read by backward
    void* weight_grad;      // like weight
    void* partial;          // P [groups, weight_rows, HW]
    unsigned int* tickets;  // one per strip; zero before the first launch

    double k;
    double input_gain;      // (1 - k) / C^2

    unsigned long long step_stride;
    unsigned long long sample_stride;
    unsigned long long channel_stride;
    unsigned long long pixel_stride;
    unsigned int steps;
    unsigned int samples;
    unsigned int channels;
    unsigned int pixels;    // H*W
    unsigned int weight_rows;
    unsigned int columns;   // vectors of pixels side by side in a strip
    unsigned int lanes;     // threads that share a column, over channels
    unsigned int strips;
    unsigned int groups;    // of samples
    unsigned int group_samples;
    unsigned int lanes_first;  // 1: neighbouring threads are neighbouring channels (channels-last)
    unsigned int reserved;
};

#if defined(__cplusplus)
#define SPIKENORM_AT(type, field, offset) \
    static_assert(__builtin_offsetof(type, field) == (offset), #type "." #field)
SPIKENORM_AT(SpikenormNormParams, slots, 104);
SPIKENORM_AT(SpikenormNormParams, eps, 136);
SPIKENORM_AT(SpikenormNormParams, step_stride, 176);
SPIKENORM_AT(SpikenormNormParams, channels, 192);
SPIKENORM_AT(SpikenormNormParams, statistics_stride, 224);
SPIKENORM_AT(SpikenormNormParams, phase, 240);
SPIKENORM_AT(SpikenormNormParams, partial_offset, 296);
SPIKENORM_AT(SpikenormNormParams, tensor_bytes, 312);
static_assert(sizeof(SpikenormNormParams) == 320, "SpikenormNormParams");
SPIKENORM_AT(SpikenormNeuNormParams, k, 72);
SPIKENORM_AT(SpikenormNeuNormParams, step_stride, 88);
SPIKENORM_AT(SpikenormNeuNormParams, steps, 120);
SPIKENORM_AT(SpikenormNeuNormParams, lanes_first, 160);
static_assert(sizeof(SpikenormNeuNormParams) == 168, "SpikenormNeuNormParams");
#undef SPIKENORM_AT
#endif

// What the host hands the kernels of unfold.cuh: plain data, no includes, mirrored by src/kit/unfold.rs.
// Both sides assert the same size and offsets; change them together.
#pragma once

// Places (of a matrix row or an image plane) that one block walks.
#define SPIKENORM_UNFOLD_PLACES 1024u

struct SpikenormUnfoldParams {
    const void* in;
    void* out;
    const void* bias;                  // P, one value per channel; null is 0

    unsigned long long sample_stride;  // elements from sample to sample of the tensor [samples, C, plane]
    unsigned long long count;          // values of a flat walk, or of a channel to sum
    unsigned long long group_count;    // of those, in one group

    unsigned int samples;
    unsigned int channels;             // of this launch
    unsigned int columns;              // of the matrix: samples * positions, or the row length of a flat walk
    unsigned int strips;               // blocks along a row
    unsigned int pixels;               // of an input plane
    unsigned int positions;            // of an output plane
    unsigned int input_height;
    unsigned int input_width;
    unsigned int output_height;
    unsigned int output_width;
    unsigned int kernel_height;
    unsigned int kernel_width;
    unsigned int stride_height;
    unsigned int stride_width;
    unsigned int padding_height;
    unsigned int padding_width;
    unsigned int groups;               // that share the values of a channel
    unsigned int lanes;                // channels side by side in a block, a power of two
};

#if defined(__cplusplus)
#define SPIKENORM_AT(field, offset) \
    static_assert(__builtin_offsetof(SpikenormUnfoldParams, field) == (offset), "SpikenormUnfoldParams." #field)
SPIKENORM_AT(sample_stride, 24);
SPIKENORM_AT(samples, 48);
SPIKENORM_AT(pixels, 64);
SPIKENORM_AT(kernel_height, 88);
SPIKENORM_AT(groups, 112);
static_assert(sizeof(SpikenormUnfoldParams) == 120, "SpikenormUnfoldParams");
#undef SPIKENORM_AT
#endif

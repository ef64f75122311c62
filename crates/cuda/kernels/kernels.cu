// Every kernel by name, as the host asks for them: <pass>_<dtype>_<lanes><V>.
#include "neu_norm.cuh"
#include "norm_backward.cuh"
#include "unfold.cuh"

#define NORM(name, T, Lanes)                                                                                \
    SPIKENORM_KERNEL(norm_forward_##name, SpikenormNormParams, 512, (spikenorm::norm_forward<T, Lanes>))    \
    SPIKENORM_KERNEL(norm_backward_##name, SpikenormNormParams, 512, (spikenorm::norm_backward<T, Lanes>))

#define COMBINE(name, T)                                                                                    \
    SPIKENORM_KERNEL(norm_combine_forward_##name, SpikenormNormParams, 128, (spikenorm::combine_forward<T>)) \
    SPIKENORM_KERNEL(norm_combine_backward_##name, SpikenormNormParams, 128,                                \
                     (spikenorm::combine_backward<spikenorm::Element<T>::P>))

#define NEU_NORM(name, T, V)                                                                                \
    SPIKENORM_KERNEL(neu_norm_forward_##name, SpikenormNeuNormParams, 512, (spikenorm::neu_norm_forward<T, V>)) \
    SPIKENORM_KERNEL(neu_norm_backward_##name, SpikenormNeuNormParams, 512, (spikenorm::neu_norm_backward<T, V>))

using spikenorm::BFloat16;
using spikenorm::ChannelLanes;
using spikenorm::Half;
using spikenorm::SpaceLanes;

NORM(f32_space1, float, SpaceLanes<1>)
NORM(f32_space4, float, SpaceLanes<4>)
NORM(f32_channel4, float, ChannelLanes<4>)
NORM(f64_space1, double, SpaceLanes<1>)
NORM(f64_space2, double, SpaceLanes<2>)
NORM(f64_channel1, double, ChannelLanes<1>)
NORM(f16_space1, Half, SpaceLanes<1>)
NORM(f16_space4, Half, SpaceLanes<4>)
NORM(f16_space8, Half, SpaceLanes<8>)
NORM(f16_channel4, Half, ChannelLanes<4>)
NORM(bf16_space1, BFloat16, SpaceLanes<1>)
NORM(bf16_space4, BFloat16, SpaceLanes<4>)
NORM(bf16_space8, BFloat16, SpaceLanes<8>)
NORM(bf16_channel4, BFloat16, ChannelLanes<4>)

COMBINE(f32, float)
COMBINE(f64, double)
COMBINE(f16, Half)
COMBINE(bf16, BFloat16)

NEU_NORM(f32_1, float, 1)
NEU_NORM(f32_4, float, 4)
NEU_NORM(f64_1, double, 1)
NEU_NORM(f64_2, double, 2)
NEU_NORM(f16_1, Half, 1)
NEU_NORM(f16_4, Half, 4)
NEU_NORM(bf16_1, BFloat16, 1)
NEU_NORM(bf16_4, BFloat16, 4)

// Convolutions and linear layers, around the matrix products.
#define UNFOLD(name, T)                                                                                     \
    SPIKENORM_KERNEL(unfold_##name, SpikenormUnfoldParams, 256, (spikenorm::unfold<T>))                     \
    SPIKENORM_KERNEL(fold_##name, SpikenormUnfoldParams, 256, (spikenorm::fold<T>))                         \
    SPIKENORM_KERNEL(gather_matrix_##name, SpikenormUnfoldParams, 256, (spikenorm::gather_matrix<T>))       \
    SPIKENORM_KERNEL(scatter_matrix_##name, SpikenormUnfoldParams, 256, (spikenorm::scatter_matrix<T>))     \
    SPIKENORM_KERNEL(add_row_bias_##name, SpikenormUnfoldParams, 256, (spikenorm::add_row_bias<T>))         \
    SPIKENORM_KERNEL(sum_channels_##name, SpikenormUnfoldParams, 256, (spikenorm::sum_channels<T>))

UNFOLD(f32, float)
UNFOLD(f64, double)
UNFOLD(f16, Half)
UNFOLD(bf16, BFloat16)

SPIKENORM_KERNEL(total_channels_f32, SpikenormUnfoldParams, 256, (spikenorm::total_channels<float>))
SPIKENORM_KERNEL(total_channels_f64, SpikenormUnfoldParams, 256, (spikenorm::total_channels<double>))

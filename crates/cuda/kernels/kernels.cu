// Every kernel by name, as the host asks for them: <pass>_<dtype>_<lanes><V>, in the training kit <operation>_<dtype>.
#include "elementwise.cuh"
#include "loss.cuh"
#include "neu_norm.cuh"
#include "neuron.cuh"
#include "norm_backward.cuh"
#include "optim.cuh"
#include "pool.cuh"
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

#define KIT(name, Params, T, function) SPIKENORM_KERNEL(name, Params, 512, (spikenorm::function<T>))

// <to>_<from>.
#define CAST(to, To, from, From) \
    SPIKENORM_KERNEL(cast_##to##_##from, SpikenormElementwiseParams, 512, (spikenorm::cast<To, From>))

#define FLOATING(name, T)                                                       \
    KIT(add_##name, SpikenormElementwiseParams, T, add)                         \
    KIT(neuron_forward_##name, SpikenormNeuronParams, T, neuron_forward)        \
    KIT(neuron_backward_##name, SpikenormNeuronParams, T, neuron_backward)      \
    KIT(avg_pool2d_forward_##name, SpikenormPoolParams, T, average_forward)     \
    KIT(avg_pool2d_backward_##name, SpikenormPoolParams, T, average_backward)   \
    KIT(max_pool2d_forward_##name, SpikenormPoolParams, T, maximum_forward)     \
    KIT(max_pool2d_backward_##name, SpikenormPoolParams, T, maximum_backward)   \
    KIT(cross_entropy_##name, SpikenormLossParams, T, cross_entropy)

#define PARAMETER(name, P)                              \
    KIT(sgd_##name, SpikenormSgdParams, P, sgd)         \
    KIT(adam_##name, SpikenormAdamParams, P, adam)

using spikenorm::BFloat16;
using spikenorm::ChannelLanes;
using spikenorm::Half;
using spikenorm::SpaceLanes;

NORM(f32_space1, float, SpaceLanes<1>)
NORM(f32_space4, float, SpaceLanes<4>)
NORM(f32_channel2, float, ChannelLanes<2>)
NORM(f64_space1, double, SpaceLanes<1>)
NORM(f64_space2, double, SpaceLanes<2>)
NORM(f64_channel1, double, ChannelLanes<1>)
NORM(f16_space1, Half, SpaceLanes<1>)
NORM(f16_space4, Half, SpaceLanes<4>)
NORM(f16_space8, Half, SpaceLanes<8>)
NORM(f16_channel2, Half, ChannelLanes<2>)
NORM(bf16_space1, BFloat16, SpaceLanes<1>)
NORM(bf16_space4, BFloat16, SpaceLanes<4>)
NORM(bf16_space8, BFloat16, SpaceLanes<8>)
NORM(bf16_channel2, BFloat16, ChannelLanes<2>)

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

FLOATING(f64, double)
FLOATING(f32, float)
FLOATING(f16, Half)
FLOATING(bf16, BFloat16)

PARAMETER(f32, float)
PARAMETER(f64, double)

KIT(fill_f64, SpikenormElementwiseParams, double, fill)
KIT(fill_f32, SpikenormElementwiseParams, float, fill)
KIT(fill_f16, SpikenormElementwiseParams, Half, fill)
KIT(fill_bf16, SpikenormElementwiseParams, BFloat16, fill)
KIT(fill_u8, SpikenormElementwiseParams, unsigned char, fill)
KIT(fill_i64, SpikenormElementwiseParams, long long, fill)

CAST(f64, double, f32, float)
CAST(f64, double, f16, Half)
CAST(f64, double, bf16, BFloat16)
CAST(f64, double, u8, unsigned char)
CAST(f64, double, i64, long long)

CAST(f32, float, f64, double)
CAST(f32, float, f16, Half)
CAST(f32, float, bf16, BFloat16)
CAST(f32, float, u8, unsigned char)
CAST(f32, float, i64, long long)

CAST(f16, Half, f64, double)
CAST(f16, Half, f32, float)
CAST(f16, Half, bf16, BFloat16)
CAST(f16, Half, u8, unsigned char)
CAST(f16, Half, i64, long long)

CAST(bf16, BFloat16, f64, double)
CAST(bf16, BFloat16, f32, float)
CAST(bf16, BFloat16, f16, Half)
CAST(bf16, BFloat16, u8, unsigned char)
CAST(bf16, BFloat16, i64, long long)

CAST(u8, unsigned char, f64, double)
CAST(u8, unsigned char, f32, float)
CAST(u8, unsigned char, f16, Half)
CAST(u8, unsigned char, bf16, BFloat16)
CAST(u8, unsigned char, i64, long long)

CAST(i64, long long, f64, double)
CAST(i64, long long, f32, float)
CAST(i64, long long, f16, Half)
CAST(i64, long long, bf16, BFloat16)
CAST(i64, long long, u8, unsigned char)
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

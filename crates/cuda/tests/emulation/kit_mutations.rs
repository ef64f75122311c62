//! Bugs planted in the training kit's kernels.

use crate::mutations::{Mutation, plant};

const SPAN: &str = "span.cuh";
const SCALAR: &str = "scalar.cuh";
const ELEMENTWISE: &str = "elementwise.cuh";
const NEURON: &str = "neuron.cuh";
const POOL: &str = "pool.cuh";
const LOSS: &str = "loss.cuh";
const OPTIM: &str = "optim.cuh";

/// Files whose mutants only the kit's cases need to meet.
pub const KIT_FILES: [&str; 7] = [SPAN, SCALAR, ELEMENTWISE, NEURON, POOL, LOSS, OPTIM];

pub const KIT_MUTATIONS: &[Mutation] = &[
    plant(
        "kit span: values before the first pack are skipped",
        SPAN,
        "i < span.head ? i : i + packed",
        0,
        "i + packed",
    ),
    plant("kit span: packs start at the first value", SPAN, "span.head + i * V", 0, "i * V"),
    plant(
        "kit span: threads take one turn",
        SPAN,
        "i < span.packs; i += stride",
        0,
        "i < span.packs; i += span.packs",
    ),
    plant(
        "kit scalar: rounded twice",
        SCALAR,
        "(beyond ? float_to_bits(nearest) - 1 : float_to_bits(nearest)) | 1u",
        0,
        "float_to_bits(nearest)",
    ),
    plant(
        "kit scalar: what is inexact is cut first",
        SCALAR,
        "beyond ? float_to_bits(nearest) - 1 : float_to_bits(nearest)",
        0,
        "float_to_bits(nearest) - 1",
    ),
    plant("kit scalar: bytes wrap", SCALAR, "value >= 255.0 ? 255", 0, "value >= 256.0 ? 0"),
    plant(
        "kit scalar: integers past the largest are cast",
        SCALAR,
        "if (value >= limit) return 9223372036854775807ll;",
        0,
        "",
    ),
    plant("kit sum: the difference", ELEMENTWISE, "E::load(a.value[v]) + E", 0, "E::load(a.value[v]) - E"),
    plant(
        "kit neurons: a voltage at the threshold does not fire",
        NEURON,
        "voltage >= threshold",
        0,
        "voltage > threshold",
    ),
    plant("kit neurons: a soft reset resets", NEURON, "p.hard_reset ? rest : voltage - threshold", 0, "rest"),
    plant(
        "kit neurons: the voltage after reset is saved",
        NEURON,
        "if (p.voltages != nullptr) store_pack(p.voltages, step, state);",
        0,
        "if (p.voltages != nullptr && first + i > 0) store_pack(p.voltages, step - p.span.count, state);",
    ),
    plant(
        "kit neurons: the state carried over is not read",
        NEURON,
        "if (p.state != nullptr) state = load_pack<P, V>(p.state, at);",
        0,
        "",
    ),
    plant(
        "kit neurons: the gradient carried over is not read",
        NEURON,
        "if (p.state != nullptr) carry = load_pack<P, V>(p.state, at);",
        0,
        "",
    ),
    plant(
        "kit neurons: the input is divided whatever the charge",
        NEURON,
        "p.charge == SPIKENORM_CHARGE_DECAY_INPUT",
        0,
        "true",
    ),
    plant(
        "kit neurons: a hard reset passes the gradient of h on",
        NEURON,
        "z >= P(0) && p.hard_reset ? P(0) : P(1)",
        0,
        "P(1)",
    ),
    plant(
        "kit neurons: the reset's gradient is never detached",
        NEURON,
        "if (!p.detach_reset) through",
        0,
        "through",
    ),
    plant(
        "kit neurons: the surrogate's exponential overflows",
        NEURON,
        "scaled > P(0) ? -scaled : scaled",
        0,
        "scaled",
    ),
    plant(
        "kit neurons: steps left over are not walked back",
        NEURON,
        "end < kBackwardAhead ? end : kBackwardAhead",
        0,
        "end <= kBackwardAhead ? end : kBackwardAhead + 1",
    ),
    plant("kit pool: padding counts as image", POOL, "padding > first ? padding - first : 0", 0, "0"),
    plant(
        "kit pool: windows reach past the image",
        POOL,
        "smaller(kernel, end > first ? end - first : 0)",
        0,
        "kernel",
    ),
    plant(
        "kit pool: the first window that covers a value is left out",
        POOL,
        "(padded - kernel) / stride + 1 : 0",
        0,
        "(padded - kernel) / stride + 2 : 0",
    ),
    plant(
        "kit pool: windows past the last are asked",
        POOL,
        "smaller(windows, padded / stride + 1)",
        0,
        "padded / stride + 1",
    ),
    plant(
        "kit pool: the last of equal values wins",
        POOL,
        "value > best || value != value",
        0,
        "value >= best || value != value",
    ),
    plant("kit pool: NaN is passed over", POOL, "value > best || value != value", 0, "value > best"),
    plant("kit pool: planes share their pixels", POOL, "body(i, i / plane,", 0, "body(i, 0,"),
    plant("kit loss: no barrier between the warps' values and their fold", LOSS, "block_sync();", 0, ""),
    plant("kit loss: no barrier between a fold and the next", LOSS, "block_sync();", 1, ""),
    plant(
        "kit loss: the flag lies where the sums go",
        LOSS,
        "dynamic_shared() + thread_count() / 32 * sizeof(double)",
        0,
        "dynamic_shared()",
    ),
    plant("kit loss: logits are not shifted", LOSS, "- largest) / total * scale", 0, ") / total * scale"),
    plant("kit loss: the label takes nothing off", LOSS, "share - scale : share", 0, "share : share"),
    plant("kit loss: the last label that is no class is reported", LOSS, "&& sample < bad)", 0, ")"),
    plant(
        "kit loss: a label equal to the number of classes is one",
        LOSS,
        "static_cast<Index>(label) < p.classes",
        0,
        "static_cast<Index>(label) <= p.classes",
    ),
    plant("kit SGD: a fresh momentum is read", OPTIM, "if (!p.first)", 0, ""),
    plant("kit SGD: Nesterov looks nowhere", OPTIM, "p.nesterov ?", 0, "false ?"),
    plant("kit Adam: no barrier between the corrections and their use", OPTIM, "block_sync();", 0, ""),
    plant("kit Adam: the count is of steps before", OPTIM, "*p.step + 1);", 0, "*p.step);"),
    plant(
        "kit Adam: every block counts the step",
        OPTIM,
        "is_last_block(p.ticket, block_count(), flag) &&",
        0,
        "",
    ),
    plant(
        "kit Adam: the root is corrected after eps",
        OPTIM,
        "square_root(s) / root + eps",
        0,
        "(square_root(s) + eps) / root",
    ),
];

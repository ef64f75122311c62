"""The layers on PyTorch's side: SpikingJelly's classes, and plain PyTorch where it has the layer."""

import torch
from torch import nn

NO_SUCH_LAYER = "PyTorch has no such layer"
BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
CLASSES = {
    "batchnorm": "BatchNorm",
    "tdbn": "ThresholdDependentBatchNorm",
    "tebn": "TemporalEffectiveBatchNorm",
    "bntt": "BatchNormThroughTime",
}


def spatial(shape):
    return max(1, len(shape) - 3)


def jelly(name, shape, step_mode="m"):
    """SpikingJelly's layer for inputs of this shape."""
    from spikingjelly.activation_based import layer

    steps, _, channels = shape[:3]
    if name == "neunorm":
        return layer.NeuNorm(channels, shape[3], shape[4], step_mode=step_mode)
    cls = getattr(layer, f"{CLASSES[name]}{spatial(shape)}d")
    if name == "batchnorm":
        return cls(channels, step_mode=step_mode)
    if name == "tdbn":
        return cls(1.0, 1.0, channels)
    if name == "tebn":
        return cls(steps, channels)
    return cls(steps, channels, step_mode=step_mode)


class Folded(nn.Module):
    """PyTorch's BatchNorm over time and batch folded into one axis, which is what BatchNorm and tdBN compute."""

    def __init__(self, shape, memory_format):
        super().__init__()
        self.norm = BATCH_NORMS[spatial(shape)](shape[2])
        self.memory_format = memory_format

    def forward(self, x):
        return self.norm(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def folded(name, shape, memory_format=torch.contiguous_format):
    return Folded(shape, memory_format) if name in ("batchnorm", "tdbn") else None


def in_dtype(module, dtype):
    """Parameters as PyTorch's mixed precision has them: those of a BatchNorm stay float32 beside half types. What
    multiplies activations (TEBN's scale, NeuNorm's w) takes their dtype, or the result would be float32."""
    if dtype == torch.float64:
        return module.double()
    for name, parameter in module.named_parameters():
        if name.split(".")[-1] in ("scale", "w"):
            parameter.data = parameter.data.to(dtype)
    return module

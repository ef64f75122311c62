#!/usr/bin/env python3
"""Writes test/fixtures/*.safetensors with the `safetensors` package of Python, whose serialiser is the one behind
safetensors.torch.save_file as well.

    pip install safetensors numpy ml_dtypes && python3 scripts/make-fixtures.py

Values follow a formula that test/state-dict.test.ts knows too: element i of the k-th tensor by name is
k + i / 8 (its whole part for integers), held exactly by every dtype here.
"""

from pathlib import Path

import ml_dtypes  # numpy has no bfloat16 of its own
import numpy
from safetensors.numpy import save_file

FIXTURES = Path(__file__).resolve().parent.parent / "test" / "fixtures"
DTYPES = {name: numpy.dtype(name) for name in ["float64", "float32", "float16", "int64", "uint8"]}
DTYPES["bfloat16"] = numpy.dtype(ml_dtypes.bfloat16)


def write(name, tensors):
    arrays = {}
    for k, (key, (dtype, shape)) in enumerate(sorted(tensors.items())):
        size = int(numpy.prod(shape, dtype=int))
        arrays[key] = (k + numpy.arange(size) / 8).astype(DTYPES[dtype]).reshape(shape)
    save_file(arrays, FIXTURES / name, metadata={"format": "pt"})


def batch_norm(prefix, channels, bias=True):
    names = ["weight", "running_mean", "running_var"] + (["bias"] if bias else [])
    tensors = {f"{prefix}{name}": ("float32", (channels,)) for name in names}
    return tensors | {f"{prefix}num_batches_tracked": ("int64", ())}


FIXTURES.mkdir(exist_ok=True)
write("batch-norm.safetensors", batch_norm("", 3))
write("temporal-effective.safetensors", batch_norm("", 3) | {"scale": ("float32", (4,))})
write("through-time.safetensors", batch_norm("bn_list.0.", 3, False) | batch_norm("bn_list.1.", 3, False))
write("neu-norm.safetensors", {"w": ("float32", (3, 2, 4))})
write(
    "dtypes.safetensors",
    {dtype: (dtype, (2, 3)) for dtype in DTYPES} | {"empty": ("float32", (0, 3)), "scalar": ("float64", ())},
)

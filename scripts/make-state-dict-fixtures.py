#!/usr/bin/env python3
"""State dicts of the 13 classes between SpikingJelly and this library.

    pip install torch safetensors spikingjelly
    python3 scripts/make-state-dict-fixtures.py                  writes test/fixtures/state-dicts/
    python3 scripts/make-state-dict-fixtures.py --check FOLDER   loads FOLDER/CLASS.safetensors strictly into each class

Each class gets CLASS.safetensors, written by safetensors.torch, and all of them together all.pt, written by torch.save. No two
values of a file are the same, and no two extents of a tensor. `--check` prints, as JSON, the bytes each class holds after
load_state_dict(strict=True): test/state-dicts.test.ts compares them with what it wrote.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from spikingjelly.activation_based import layer

FOLDER = Path(__file__).resolve().parent.parent / "test" / "fixtures" / "state-dicts"
C, T, TEBN_T = 3, 2, 4


def layers():
    """The layers that test/state-dicts.test.ts has too."""
    for d in (1, 2, 3):
        yield f"BatchNorm{d}d", getattr(layer, f"BatchNorm{d}d")(C)
        yield (
            f"ThresholdDependentBatchNorm{d}d",
            getattr(layer, f"ThresholdDependentBatchNorm{d}d")(0.5, 2.0, C),
        )
        yield f"TemporalEffectiveBatchNorm{d}d", getattr(layer, f"TemporalEffectiveBatchNorm{d}d")(TEBN_T, C)
        yield f"BatchNormThroughTime{d}d", getattr(layer, f"BatchNormThroughTime{d}d")(T, C)
    yield "NeuNorm", layer.NeuNorm(C, 2, 5)


def fill(state):
    """Values 1, 1.125, 1.25, … through all tensors, and counters of their own."""
    count = 0
    for k, value in enumerate(state.values()):
        if value.dtype == torch.int64:
            value.fill_(1000 + k)
            continue
        numbers = 1 + torch.arange(count, count + value.numel()) / 8
        value.copy_(numbers.reshape(value.shape))
        count += value.numel()


def write():
    FOLDER.mkdir(parents=True, exist_ok=True)
    everything = {}
    for name, module in layers():
        state = module.state_dict()
        fill(state)
        save_file(state, FOLDER / f"{name}.safetensors", metadata={"format": "pt"})
        everything[name] = {"state_dict": state, "keys": list(state)}
    torch.save(everything, FOLDER / "all.pt")


def check(folder):
    held = {}
    for name, module in layers():
        module.load_state_dict(load_file(Path(folder) / f"{name}.safetensors"), strict=True)
        held[name] = {
            key: [str(value.dtype), list(value.shape), value.contiguous().numpy().tobytes().hex()]
            for key, value in module.state_dict().items()
        }
    print(json.dumps(held))


if sys.argv[1:2] == ["--check"]:
    check(sys.argv[2])
else:
    write()

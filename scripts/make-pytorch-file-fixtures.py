#!/usr/bin/env python3
"""Writes test/fixtures/pytorch-files/: files of torch.save, ordinary, old, odd and hostile, for test/pytorch-file.test.ts.

    pip install torch safetensors && python3 scripts/make-pytorch-file-fixtures.py

Where a file holds tensors, a .safetensors file beside it, or the formula below, says what they are.
"""

import os
import struct
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

FOLDER = Path(__file__).resolve().parent.parent / "test" / "fixtures" / "pytorch-files"
FOLDER.mkdir(parents=True, exist_ok=True)
torch.manual_seed(3)


def save(name, value, **options):
    torch.save(value, FOLDER / f"{name}.pt", **options)


# Every dtype that has a counterpart, with bits that arithmetic would not keep, and sizes of nothing and of one.
dtypes = {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in ["float64", "float32", "float16"]}
dtypes |= {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) + 7 for name in ["bfloat16", "uint8", "int64"]}
dtypes |= {"nan": torch.tensor([float("nan"), -0.0, float("inf")]), "large": torch.tensor([2**62 + 1, -(2**63)])}
dtypes |= {"scalar": torch.tensor(2.5, dtype=torch.float64), "empty": torch.zeros(0, 3)}
save("dtypes", dtypes)
save_file(dtypes, FOLDER / "dtypes.safetensors")

# Views of one storage: with offsets, strides, in another order of axes, and repeated by strides of 0.
base = torch.arange(24.0).reshape(4, 6)
views = {
    "base": base,
    "row": base[1],
    "column": base[:, 2],
    "steps": base[::2, 1::3],
    "transposed": base.t(),
    "permuted": base.reshape(2, 2, 6).permute(2, 0, 1),
    "expanded": base[2, 3:4].expand(3, 2),
    "channels_last": (base.reshape(1, 2, 3, 4) * 2).contiguous(memory_format=torch.channels_last),
    "parameter": nn.Parameter(base[0, :2] + 0.5),
}
save("views", views)
save_file({name: value.detach().contiguous().clone() for name, value in views.items()}, FOLDER / "views.safetensors")

# What a training script saves: nested, with an optimiser that has state, a scheduler and numbers.
net = nn.Sequential(nn.Conv2d(2, 3, 2, bias=False), nn.BatchNorm2d(3))
adam = torch.optim.Adam(net.parameters(), lr=0.25)
schedule = torch.optim.lr_scheduler.MultiStepLR(adam, milestones=[2, 5])
net(torch.randn(4, 2, 3, 3)).pow(2).sum().backward()
adam.step()
schedule.step()
checkpoint = {
    "net": net.state_dict(),
    "ema": {"model": net.state_dict()},
    "optimizer": adam.state_dict(),
    "lr_scheduler": schedule.state_dict(),
    "epoch": 3,
    "max_test_acc": 0.75,
    "large": 2**70,
    "note": "größe ✓",
    "flags": [True, None, (1, -2, 300, 70000)],
    "shape": torch.Size([2, 3]),
    "dtype": torch.float16,
    "device": torch.device("cuda:1"),
    "bytes": b"\x00\xff",
    "__proto__": {"polluted": True},
}
save("checkpoint", checkpoint)
save_file(net.state_dict(), FOLDER / "checkpoint.safetensors")
for protocol in (4, 5):
    save(f"protocol-{protocol}", checkpoint, pickle_protocol=protocol)

# What has no counterpart: other dtypes, other classes, whole nets.
save("int32", {"weight": torch.ones(2), "steps": torch.ones(2, dtype=torch.int32), "mask": torch.tensor([True])})


class Args:
    """A class of the script's own, as argparse's Namespace is one of Python's."""

    def __init__(self):
        self.lr = 0.1
        self.deep = {"list": [1, 2]}


save("object", {"net": {"weight": torch.ones(2)}, "args": Args(), "after": 1})
save("whole-net", net)
save("legacy", net.state_dict(), _use_new_zipfile_serialization=False)


class Command:
    def __reduce__(self):
        return os.system, ("touch spikenorm-was-here",)


save("malicious", {"weight": torch.ones(2), "run": Command()})


def rewritten(name, target, change=lambda name, data: data, **options):
    """The same archive, written by zipfile."""
    with zipfile.ZipFile(FOLDER / f"{name}.pt") as old, zipfile.ZipFile(FOLDER / f"{target}.pt", "w", **options) as new:
        for entry in old.infolist():
            new.writestr(zipfile.ZipInfo(entry.filename), change(entry.filename, old.read(entry)), options.get("compression"))


small = {"weight": torch.arange(3.0), "half": torch.arange(3).to(torch.bfloat16), "count": torch.tensor(258)}
save("small", small)
save_file(small, FOLDER / "small.safetensors")

SIZES = {"small/data/0": "f", "small/data/1": "h", "small/data/2": "q"}


def to_big_endian(name, data):
    if name == "small/byteorder":
        return b"big"
    kind = SIZES.get(name)
    if kind is None:
        return data
    count = len(data) // struct.calcsize(kind)
    return struct.pack(f">{count}{kind}", *struct.unpack(f"<{count}{kind}", data))


rewritten("small", "big-endian", to_big_endian)
rewritten("small", "deflated", compression=zipfile.ZIP_DEFLATED)

# As for files past 4 GiB: every size and offset in 64 bits.
zipfile.ZIP64_LIMIT = 0
rewritten("small", "zip64", compression=zipfile.ZIP_STORED)

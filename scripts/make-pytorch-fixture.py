#!/usr/bin/env python3
"""Writes test/fixtures/pytorch-net.safetensors with PyTorch itself: the state_dict of a small net whose running
statistics have moved, an input, and what PyTorch gives for it in evaluation and in training.

    pip install torch safetensors && python3 scripts/make-pytorch-fixture.py
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

torch.manual_seed(7)
net = nn.Sequential(
    nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 5)
)
with torch.no_grad():
    for _ in range(3):
        net(torch.randn(8, 2, 6, 6) * 2 + 1)
    net[1].weight.uniform_(0.5, 1.5)
    net[1].bias.uniform_(-0.5, 0.5)
state = {f"net.{name}": value.clone() for name, value in net.state_dict().items()}

x = torch.randn(4, 2, 6, 6)
net.eval()
with torch.no_grad():
    evaluated = net(x)
net.train()
leaf = x.clone().requires_grad_()
trained = net(leaf)
dy = torch.randn(4, 5)
trained.backward(dy)

path = Path(__file__).resolve().parent.parent / "test" / "fixtures" / "pytorch-net.safetensors"
tensors = {"x": x, "dy": dy, "y.eval": evaluated, "y.train": trained.detach(), "dx": leaf.grad}
tensors |= {f"grad.{name}": value.grad for name, value in net.named_parameters()}
tensors |= {f"half.{name}": value.to(torch.bfloat16) for name, value in net[1].named_parameters()}
save_file(state | tensors, path, metadata={"torch": torch.__version__.split("+")[0]})

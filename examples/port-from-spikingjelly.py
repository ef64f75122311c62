#!/usr/bin/env python3
"""The other half of port-from-spikingjelly.ts: trains a small net in SpikingJelly and writes what the TypeScript side
loads and is compared with, or loads what the TypeScript side has written.

    pip install torch spikingjelly safetensors
    python3 examples/port-from-spikingjelly.py                 # writes port-from-spikingjelly.safetensors
    python3 examples/port-from-spikingjelly.py --check FILE    # loads weights that came back
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

T, N, CLASSES = 4, 6, 3
FIXTURE = Path(__file__).with_suffix(".safetensors")


def build() -> nn.Sequential:
    def lif():
        return neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(), detach_reset=True)

    net = nn.Sequential(
        layer.Conv2d(2, 8, 3, padding=1, bias=False),
        layer.ThresholdDependentBatchNorm2d(1.0, 1.0, 8),
        lif(),
        layer.MaxPool2d(2),
        layer.Conv2d(8, 8, 3, padding=1, bias=False),
        layer.TemporalEffectiveBatchNorm2d(T, 8),
        lif(),
        layer.Flatten(),
        layer.Linear(8 * 4 * 4, CLASSES),
    )
    functional.set_step_mode(net, "m")
    return net


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Gratings of three directions under noise, [T, N, 2, 8, 8]."""
    labels = torch.arange(N) % CLASSES
    row, column = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    waves = torch.stack([torch.sin(row * 1.6), torch.sin(column * 1.6), torch.sin((row + column) * 1.6)])
    images = torch.stack([waves[labels], -waves[labels]], dim=1)
    return images.expand(T, -1, -1, -1, -1) + 0.5 * torch.randn(T, N, 2, 8, 8), labels


def step(net: nn.Module, sgd: torch.optim.Optimizer, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    sgd.zero_grad()
    loss = nn.functional.cross_entropy(net(x).mean(0), labels)
    loss.backward()
    sgd.step()
    functional.reset_net(net)
    return loss.detach()


def distance_to_threshold(net: nn.Module, x: torch.Tensor) -> float:
    """How far from 1 the voltages stay before they fire: below the rounding error, spikes would be a matter of luck."""
    least = float("inf")
    value = x
    for module in net:
        if isinstance(module, neuron.LIFNode):
            v = torch.zeros_like(value[0])
            for t in range(T):
                h = v + (value[t] - v) / 2.0
                least = min(least, (h - 1).abs().min().item())
                v = torch.where(h >= 1, torch.zeros_like(h), h)
        value = module(value)
    functional.reset_net(net)
    return least


def write() -> None:
    seed = next(seed for seed in range(100) if attempt(seed))
    print(f"{FIXTURE.name}: written with seed {seed}")


def attempt(seed: int) -> bool:
    """Trains and writes the file; False where a voltage comes so close to the threshold that rounding decides."""
    torch.manual_seed(seed)
    net = build()
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(60):
        step(net, sgd, *batch())
    trained = {f"net.{name}": value.clone() for name, value in net.state_dict().items()}

    x, labels = batch()
    with torch.no_grad():
        net.eval()
        margin = distance_to_threshold(net, x)
        logits = net(x).mean(0)
        functional.reset_net(net)
        net.train()
        margin = min(margin, distance_to_threshold(net, x))
        net.load_state_dict({name.removeprefix("net."): value for name, value in trained.items()})
    if margin < 1e-4:
        return False

    loss = step(net, sgd, x, labels)
    results = {"x": x, "labels": labels, "logits": logits, "loss": loss}
    results |= {f"grad.{name}": value.grad for name, value in net.named_parameters()}
    results |= {f"stepped.{name}": value for name, value in net.state_dict().items()}
    save_file({name: value.contiguous() for name, value in (trained | results).items()}, FIXTURE)
    print(
        f"loss {loss.item():.4f}, accuracy {(logits.argmax(1) == labels).float().mean():.2f}, "
        f"voltages stay {margin:.1e} away from the threshold"
    )
    return True


def check(path: Path) -> None:
    net = build()
    net.load_state_dict(load_file(path))
    fixture = load_file(FIXTURE)
    worst = 0.0
    for name, value in net.state_dict().items():
        expected = fixture[f"stepped.{name}"]
        assert value.dtype == expected.dtype, name
        worst = max(worst, (value - expected).abs().max().item())
    assert worst < 1e-5, f"off by {worst}"
    print(f"loaded strictly; largest difference from SpikingJelly's own training step: {worst:.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", type=Path, metavar="FILE", help="weights written by port-from-spikingjelly.ts")
    arguments = parser.parse_args()
    check(arguments.check) if arguments.check else write()

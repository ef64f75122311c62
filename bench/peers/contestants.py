"""The contestants of the layer suite: one layer on PyTorch's side, in sets as the suite has them, timed pass by pass."""

import contextlib
import gc
import time

import torch

import layers
import passes_on_cuda

DTYPES = {name: getattr(torch, name) for name in ("float64", "float32", "float16", "bfloat16")}


def spikingjelly():
    """Its version, or why there is none."""
    try:
        from importlib.metadata import version

        import spikingjelly.activation_based.layer  # noqa: F401

        return version("spikingjelly"), None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def free():
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def build(peer, name, shape):
    """A function that makes the layer of a peer, and the settings it runs under, or why there is none."""
    jelly_version, reason = spikingjelly()
    plain = contextlib.nullcontext
    if peer in ("pytorch", "cudnn", "channels-last"):
        last = peer == "channels-last"
        if last and len(shape) < 5:
            return "channels-last is for images and videos"
        layout = {5: torch.channels_last, 6: torch.channels_last_3d}[len(shape)] if last else torch.contiguous_format
        if layers.folded(name, shape) is None:
            return layers.NO_SUCH_LAYER
        native = peer == "pytorch"
        settings = (lambda: torch.backends.cudnn.flags(enabled=not native)) if torch.cuda.is_available() else plain
        return (lambda: layers.folded(name, shape, layout)), settings
    if jelly_version is None:
        return f"SpikingJelly is not installed ({reason})"
    if peer == "compile":
        return (lambda: torch.compile(layers.jelly(name, shape), dynamic=False)), plain
    return (lambda: layers.jelly(name, shape)), plain


class Set:
    """A layer of its own with its input."""

    def __init__(self, make, shape, dtype, device):
        self.layer = layers.in_dtype(make(), dtype).to(device).train()
        x, dy = (torch.randn(shape, device=device, dtype=torch.float32).to(dtype) for _ in range(2))
        layout = getattr(self.layer, "memory_format", torch.contiguous_format)
        if layout != torch.contiguous_format:
            x, dy = (t.flatten(0, 1).to(memory_format=layout).unflatten(0, shape[:2]) for t in (x, dy))
        self.x, self.dy = x.requires_grad_(), dy
        self.wanted = [self.x, *(p for p in self.layer.parameters() if p is not None)]
        self.y = self.grads = None

    def reset(self):
        self.y = self.grads = None
        inner = getattr(self.layer, "_orig_mod", self.layer)
        if hasattr(inner, "reset"):
            inner.reset()

    def forward(self):
        self.y = self.layer(self.x)

    def backward(self):
        self.grads = torch.autograd.grad(self.y, self.wanted, self.dy)


def timed(body):
    """µs."""
    started = time.perf_counter_ns()
    body()
    return (time.perf_counter_ns() - started) / 1000


class OnCpu:
    def __init__(self, sets, settings):
        self.sets, self.settings = sets, settings

    def round(self):
        for one in self.sets:
            one.reset()
        with self.settings():
            forward = [timed(one.forward) for one in self.sets]
            backward = [timed(one.backward) for one in self.sets]
        return {"forward": forward, "backward": backward}


def create(request):
    shape, dtype, device = request["shape"], DTYPES[request["dtype"]], request["device"]
    built = build(request["peer"], request["layer"], shape)
    if isinstance(built, str):
        return built
    make, settings = built
    torch.manual_seed(0)
    sets = [Set(make, shape, dtype, device) for _ in range(request["sets"])]
    if device == "cpu":
        return OnCpu(sets, settings)
    return passes_on_cuda.OnCuda(sets, settings, request["launch"])

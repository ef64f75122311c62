"""The demo's net in PyTorch and SpikingJelly, trained on the same digits in the same order from the same weights."""

import json
import struct
import time

import torch
from torch import nn
from torch.nn import functional as F

import contestants
import layers


def read_safetensors(path):
    """float32 and int64 tensors of a file. (The package of that name may not be there.)"""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = bytearray(file.read())
    header.pop("__metadata__", None)
    dtypes = {"F32": torch.float32, "I64": torch.int64, "U8": torch.uint8}
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        dtype = dtypes[entry["dtype"]]
        tensors[name] = torch.frombuffer(data[start:end], dtype=dtype).reshape(entry["shape"])
    return tensors


def build(norm, depth, steps, channels, classes, side):
    from spikingjelly.activation_based import layer, neuron, surrogate

    modules = []
    for at in range(depth):
        modules.append(layer.Conv2d(1 if at == 0 else channels, channels, 3, padding=1, bias=False, step_mode="m"))
        shape = [steps, 1, channels, side, side]
        if norm != "none":
            modules.append(layers.jelly("batchnorm" if norm == "neunorm" else norm, shape))
        fire = surrogate.ATan()
        modules.append(neuron.LIFNode(tau=2.0, decay_input=False, surrogate_function=fire, detach_reset=True, step_mode="m"))
        if norm == "neunorm":
            modules.append(layers.jelly("neunorm", shape))
    modules += [layer.Flatten(step_mode="m"), layer.Linear(channels * side * side, classes, step_mode="m")]
    return nn.Sequential(*modules)


class Training:
    def __init__(self, request):
        self.net = build(*(request[key] for key in ("norm", "depth", "steps", "channels", "classes", "side")))
        self.net.load_state_dict(read_safetensors(request["weights"]))
        self.net.to(request["device"]).train()
        data = read_safetensors(request["data"])
        self.pixels, self.labels, self.order = (data[key] for key in ("pixels", "labels", "order"))
        self.request = request
        self.epoch = 0
        self.adam = torch.optim.Adam(self.net.parameters(), lr=request["lr"])

    def round(self):
        """One epoch."""
        from spikingjelly.activation_based import functional

        request, side = self.request, self.request["side"]
        order = self.order[self.epoch]
        self.epoch += 1
        total = 0.0
        started = time.perf_counter()
        for start in range(0, len(order), request["batch"]):
            rows = order[start : start + request["batch"]]
            images = self.pixels[rows].reshape(1, -1, 1, side, side).repeat(request["steps"], 1, 1, 1, 1)
            labels = self.labels[rows].to(request["device"])
            loss = F.cross_entropy(self.net(images.to(request["device"])).mean(0), labels)
            self.adam.zero_grad()
            loss.backward()
            self.adam.step()
            functional.reset_net(self.net)
            total += loss.item() * len(rows)
        return {"seconds": time.perf_counter() - started, "loss": total / len(order)}


def create(request):
    version, reason = contestants.spikingjelly()
    if version is None:
        return f"SpikingJelly is not installed ({reason})"
    return Training(request)

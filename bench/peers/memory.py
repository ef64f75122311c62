"""What a training step keeps: bytes saved for backward, and the most the CPU allocator held above its start."""

import json
import os
import tempfile

import torch

import contestants
import layers


def measure(request):
    version, reason = contestants.spikingjelly()
    if version is None:
        return {"absent": f"SpikingJelly is not installed ({reason})"}
    shape, dtype = request["shape"], contestants.DTYPES[request["dtype"]]
    one = contestants.Set(lambda: layers.jelly(request["layer"], shape), shape, dtype, "cpu")
    parameters = {p.untyped_storage().data_ptr() for p in one.layer.parameters()}
    saved = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    one.reset()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        one.forward()
    total = sum(saved.values())
    one.reset()
    contestants.free()
    return {"saved": total, "peak": peak_of(one)}


def peak_of(one):
    """Largest growth of the allocator's total during one step, from PyTorch's own record of every allocation."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        one.forward()
        one.backward()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "trace.json")
        profile.export_chrome_trace(path)
        with open(path) as file:
            events = json.load(file)["traceEvents"]
    moves = sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"])
    held = most = 0
    for move in moves:
        held += move["args"]["Bytes"]
        most = max(most, held)
    return most

"""Passes on a GPU, timed there by events: captured in CUDA graphs, or launched one by one."""

import torch


class OnCuda:
    def __init__(self, sets, settings, launch):
        self.sets, self.settings = sets, settings
        self.note = None
        self.graphs = None
        with settings():
            # First calls compile, choose algorithms and make handles.
            for _ in range(3):
                self.reset()
                self.forwards()
                self.backwards()
            torch.cuda.synchronize()
            if launch == "graph":
                self.capture()

    def reset(self):
        for one in self.sets:
            one.reset()

    def forwards(self):
        for one in self.sets:
            one.forward()

    def backwards(self):
        for one in self.sets:
            one.backward()

    def capture(self):
        """Forwards and backwards as two graphs of one pool: the second reads what the first leaves."""
        try:
            self.reset()
            forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
            with torch.cuda.graph(forward):
                self.forwards()
            with torch.cuda.graph(backward, pool=forward.pool()):
                self.backwards()
            torch.cuda.synchronize()
            self.graphs = forward, backward
        except Exception as error:
            torch.cuda.synchronize()
            self.note = f"launched one by one: capture failed ({str(error).splitlines()[0][:120]})"

    def timed(self, body):
        """µs of one pass: the mean over all sets."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        body()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) * 1000 / len(self.sets)

    def round(self):
        if self.graphs:
            forward, backward = self.graphs
            return {"forward": [self.timed(forward.replay)], "backward": [self.timed(backward.replay)]}
        self.reset()
        with self.settings():
            return {"forward": [self.timed(self.forwards)], "backward": [self.timed(self.backwards)]}

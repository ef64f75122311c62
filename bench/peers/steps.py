"""Small tensors one time step a call: what calling costs from Python."""

import torch

import contestants
import layers


class Steps:
    """T forwards of one step each, then T backwards, latest first."""

    def __init__(self, layer, shape):
        self.layer = layer.train()
        self.xs = [torch.randn(shape[1:]).requires_grad_() for _ in range(shape[0])]
        self.dy = torch.randn(shape[1:])
        self.parameters = list(layer.parameters())

    def round(self):
        if hasattr(self.layer, "reset"):
            self.layer.reset()
        for tensor in (*self.xs, *self.parameters):
            tensor.grad = None
        ys = []
        forward = contestants.timed(lambda: ys.extend([self.layer(x) for x in self.xs]))
        backward = contestants.timed(lambda: self.backwards(ys))
        return {"forward": [forward / len(self.xs)], "backward": [backward / len(self.xs)]}

    def backwards(self, ys):
        # One call for all steps, as in PyTorch: T calls would free a graph that a carried state still needs.
        torch.autograd.backward(ys, [self.dy] * len(ys))


def create(request):
    version, reason = contestants.spikingjelly()
    if version is None:
        return f"SpikingJelly is not installed ({reason})"
    if request["layer"] in ("tdbn", "tebn"):
        return "takes all time steps at once"
    torch.manual_seed(0)
    return Steps(layers.jelly(request["layer"], request["shape"], "s"), request["shape"])

"""One network, or several of one shape as one program."""

import torch

from .arguments import drawn_anew


class One:
    """A network alone: the module itself, channels last."""

    def __init__(self, copies, device, compiled):
        self.body = copies[0].to(device)
        self.channels_last = any(p.ndim == 4 for p in self.body.parameters())
        if self.channels_last:
            self.body = self.body.to(memory_format=torch.channels_last)
        self.parameters = list(self.body.parameters())
        self._call = torch.compile(self.body) if compiled else self.body

    def forward(self, x, own=False):
        """Features (1, B, d) of images (B, C, H, W)."""
        return self._call(x)[None]

    def state(self):
        return self.body.state_dict()

    def load(self, state):
        self.body.load_state_dict(state)


class Stack:
    """E copies of a network with their weights stacked, one tensor (E, …) for each, and one call
    for all.
    """

    channels_last = False

    def __init__(self, copies, device, compiled):
        weights, buffers = torch.func.stack_module_state(copies)
        self.weights = {
            name: p.detach().to(device).requires_grad_(p.requires_grad)
            for name, p in weights.items()
        }
        self.buffers = {name: buffer.to(device) for name, buffer in buffers.items()}
        self.body, self.parameters = copies[0].to(device), list(self.weights.values())
        call = lambda weights, buffers, x: torch.func.functional_call(
            self.body, (weights, buffers), (x,)
        )
        stacked = {
            own: torch.func.vmap(call, in_dims=(0, 0, 0 if own else None)) for own in (False, True)
        }
        if hasattr(self.body, "stacked"):
            stacked = dict.fromkeys(
                stacked, lambda weights, buffers, x: self.body.stacked(weights, x)
            )
        self._call = {own: torch.compile(f) if compiled else f for own, f in stacked.items()}

    def forward(self, x, own=False):
        """Features (E, B, d) of images (B, C, H, W), or (E, B, C, H, W) where members have their
        own.
        """
        return self._call[own](self.weights, self.buffers, x)

    def state(self):
        return {name: p.detach() for name, p in self.weights.items()} | self.buffers

    def load(self, state):
        with torch.no_grad():
            for name, part in [*self.weights.items(), *self.buffers.items()]:
                part.copy_(state[name])


def starts(model, classifier, K, seeds, E):
    """E networks, W (E, K, d) and b (E, K), each initialised anew; `classifier` is the recipe's.
    Of one seed for all, each goes on where the last one stopped.
    """
    found = []
    with torch.random.fork_rng(devices=[]):
        for e in range(E):
            if e == 0 or len(seeds) > 1:  # the CPU's only, which fork_rng puts back
                torch.default_generator.manual_seed(seeds[e])
            body = drawn_anew(model)
            found.append((body, *classifier(K, model.dim)))
    copies, W, b = zip(*found)
    return list(copies), torch.stack(W), torch.stack(b)

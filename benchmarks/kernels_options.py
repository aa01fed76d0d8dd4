"""Each option alone against plain ours, training: what it costs. `python benchmarks/kernels.py --tables options`.

"lengths" are all T, so the work is the same and only the asking costs; "reset" cuts at 5 % of the steps; "states" are asked for and get a
gradient into c as into the output; "state" gets initial h and c that need gradients. Dropout acts between layers: in the row of two.
"""

from collections.abc import Callable
from typing import Any

from contest import Bar, Contest

SHAPES = ((100, 32, 8, 64, 1), (35, 20, 200, 200, 2), (50, 64, 256, 512, 1))
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lengths": {},
    "reset": {},
    "states": {},
    "state": {},
    "dropout": {"dropout": 0.5},
    "recurrent_dropout": {"recurrent_dropout": 0.25},
    "weight_drop": {"weight_drop": 0.5},
    "zoneout_h": {"zoneout_h": 0.1},
    "zoneout_c": {"zoneout_c": 0.1},
    "zoneout_h and _c": {"zoneout_h": 0.1, "zoneout_c": 0.1},
    "peepholes": {"peepholes": True},
    "coupled": {"coupled": True},
    "layer_norm": {"layer_norm": True},
}
COST = {"layer_norm": 1.4, "weight_drop": 1.1}
OTHERS = 1.25


def make(name: str, shape: tuple[int, int, int, int, int]) -> Callable[[], Any]:
    import torch

    import recurra.nn
    from recurra.machine import step

    steps, rows, inputs, hidden, layers = shape
    torch.manual_seed(0)
    layer = recurra.nn.LSTM(inputs, hidden, layers, **OPTIONS[name])
    x, dy = torch.randn(steps, rows, inputs), torch.randn(steps, rows, hidden)
    asked: dict[str, Any] = {}
    leaves = list(layer.parameters())
    if name == "lengths":
        asked["lengths"] = torch.full((rows,), steps)
    if name == "reset":
        asked["reset"] = torch.rand(rows, steps) < 0.05
    if name == "state":
        asked["hx"] = tuple(torch.randn(layers, rows, hidden, requires_grad=True) for _ in range(2))
        leaves += asked["hx"]
    if name == "states":
        layer(x, states=True)

        def call() -> tuple[Any, ...]:
            for leaf in leaves:
                leaf.grad = None
            output, _, every = layer(x, states=True)
            torch.autograd.backward([output, every[-1].c], [dy, dy])
            return (output,)

        return call
    return step(lambda: layer(x, **asked)[0], leaves, dy)


def contests() -> list[Contest]:
    made = []
    for shape in SHAPES:
        names = [name for name in OPTIONS if name != "dropout" or shape[-1] > 1]
        bars = tuple(Bar(name, "plain", at_most=COST.get(name, OTHERS)) for name in names if name != "plain")
        variants = {name: lambda name=name, shape=shape: make(name, shape) for name in names}
        made.append(Contest(f"lstm {','.join(map(str, shape))} training", variants, bars))
    return made

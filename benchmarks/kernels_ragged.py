"""Ragged batches, 56 % of the frames valid: torch packed and padded against ours with lengths, packed, and padded.

Lengths run evenly from 12 to 100 % of T, in random order. Packed variants get and give packed data, so packing and unpacking, which
torch's users pay too, are left out in torch's favour. `python benchmarks/kernels.py --tables ragged`.
"""

from collections.abc import Callable
from typing import Any

from contest import Bar, Contest

# T, B, I, H: what torch's packed training takes over ours with lengths, at least
SHAPES = {(1000, 16, 32, 64): 20.0, (300, 16, 128, 256): 6.0}
SHARE = 0.56
MARGIN = 0.15
VARIANTS = ("torch packed", "torch padded", "recurra lengths", "recurra packed", "recurra padded")


def make(name: str, shape: tuple[int, int, int, int], training: bool) -> Callable[[], Any]:
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence

    import recurra.nn
    from recurra.machine import answer, step

    steps, rows, inputs, hidden = shape
    torch.manual_seed(0)
    layer: Any = torch.nn.LSTM(inputs, hidden)
    x, dy = torch.randn(steps, rows, inputs), torch.randn(steps, rows, hidden)
    low = 2 * SHARE - 1
    lengths = (torch.linspace(low, 1, rows) * steps).round().long()[torch.randperm(rows)]
    library, how = name.split(" ")
    if library == "recurra":
        ours = recurra.nn.LSTM(inputs, hidden)
        ours.load_state_dict(layer.state_dict())
        layer = ours
    layer.train(training)
    forward = {
        "padded": lambda: layer(x)[0],
        "lengths": lambda: layer(x, lengths=lengths)[0],
        "packed": lambda: layer(packed)[0].data,
    }[how]
    if how == "packed":
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        dy = pack_padded_sequence(dy, lengths, enforce_sorted=False).data
    return step(forward, list(layer.parameters()), dy) if training else answer(forward)


def contests() -> list[Contest]:
    made = []
    for shape, least in SHAPES.items():
        for training in (False, True):
            bars = (
                Bar("torch packed", "recurra lengths", at_least=least if training else None),
                Bar("torch packed", "recurra packed", at_least=least if training else None),
                Bar("torch padded", "recurra lengths"),
                Bar("recurra lengths", "recurra padded", at_most=round(SHARE + MARGIN, 2)),
                Bar("recurra packed", "recurra padded", at_most=round(SHARE + MARGIN, 2)),
            )
            row = f"lstm {','.join(map(str, shape))} {'training' if training else 'inference'}"
            variants = {
                name: lambda name=name, shape=shape, training=training: make(name, shape, training) for name in VARIANTS
            }
            # packed and padded results are laid out differently: each is compared with its like
            made.append(Contest(row, variants, bars, ("torch packed", "recurra packed"), facts={"valid": SHARE}))
    return made

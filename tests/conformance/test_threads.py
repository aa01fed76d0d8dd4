"""Threads change no output's bits, and no gradient's from run to run: large enough that the kernel really shares the work."""

import pytest
import torch

from recurra import nn
from zoo import needs_core

pytestmark = needs_core

# many rows (shared out), few rows of many units (units shared out), ragged rows
SHAPES = [(9, 40, 30, 64, False), (7, 3, 20, 300, False), (30, 25, 16, 96, True)]


def run(layer, x, hx, lengths, threads, reset=None):
    torch.manual_seed(3)  # of the masks
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        output, state = layer(x, hx, lengths=lengths, reset=reset)
        state = state if isinstance(state, tuple) else (state,)
        (output.square().sum() + state[0].sum()).backward()
    finally:
        torch.set_num_threads(before)
    grads = [parameter.grad.clone() for parameter in layer.parameters()]
    layer.zero_grad()
    return [output.detach(), *(part.detach() for part in state)], grads


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_outputs_have_the_same_bits_and_gradients_repeat(shape, dtype):
    steps, rows, inputs, hidden, ragged = shape
    torch.manual_seed(0)
    layer = nn.LSTM(inputs, hidden, 2, bidirectional=True, dtype=dtype, kernel="cpu")
    x = torch.randn(steps, rows, inputs, dtype=dtype)
    hx = (torch.randn(4, rows, hidden, dtype=dtype), torch.randn(4, rows, hidden, dtype=dtype))
    lengths = torch.arange(rows) * steps // rows if ragged else None
    one, one_grads = run(layer, x, hx, lengths, 1)
    for threads in (2, 3):
        many, grads = run(layer, x, hx, lengths, threads)
        again, grads_again = run(layer, x, hx, lengths, threads)
        assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(many, again, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(grads, grads_again, strict=True))
        scale = max(grad.abs().max() for grad in one_grads)
        limit = 1e-5 if dtype == torch.float32 else 1e-13
        assert all((a - b).abs().max() <= limit * scale for a, b in zip(grads, one_grads, strict=True))


OPTIONS = [
    {},
    {"recurrent_dropout": 0.3, "zoneout_h": 0.2},
    {"checkpoint": "every 3"},
    {"checkpoint": "gates", "zoneout_h": 0.2, "bidirectional": True},
]


@pytest.mark.parametrize("with_reset", [False, True], ids=["", "reset"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN], ids=lambda kind: kind.__name__)
def test_threads_that_share_the_units_of_a_few_rows(kind, options, with_reset):
    torch.manual_seed(0)
    layer = kind(60, 300, dtype=torch.float64, kernel="cpu", **options)
    x, reset = torch.randn(8, 5, 60, dtype=torch.float64), torch.rand(5, 8) < 0.3 if with_reset else None
    one, one_grads = run(layer, x, None, None, 1, reset)
    two, two_grads = run(layer, x, None, None, 2, reset)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    scale = max(grad.abs().max() for grad in one_grads)
    assert all((a - b).abs().max() <= 1e-13 * scale for a, b in zip(two_grads, one_grads, strict=True))

"""Derivatives of whole layers, by central differences in float64: each option alone, to x, every initial state and every parameter.

(test_scan.py does the same for one scan and for second derivatives.) The masks are drawn anew from one seed in each call.
"""

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from recurra import nn
from zoo import KERNEL_ROWS, by

KINDS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN, "RNN-relu": nn.RNN}
OPTIONS = {
    "plain": {},
    "no bias": {"bias": False},
    "two layers": {"num_layers": 2},
    "dropout": {"num_layers": 2, "dropout": 0.4},
    "layer_norm": {"layer_norm": True},
    "recurrent_dropout": {"recurrent_dropout": 0.4},
    "weight_drop": {"weight_drop": 0.4},
    "zoneout_h": {"zoneout_h": 0.3},
    "gates again": {"checkpoint": "gates"},
    "every 1 again": {"checkpoint": "every 1"},
    "every 3 again": {"checkpoint": "every 3"},
}
LSTM_ALONE = {
    "projection": {"proj_size": 2},
    "peepholes": {"peepholes": True},
    "coupled": {"coupled": True},
    "coupled with peepholes": {"coupled": True, "peepholes": True},
    "zoneout_c": {"zoneout_c": 0.3},
    "all but coupled": {
        "num_layers": 2,
        "dropout": 0.2,
        "proj_size": 2,
        "peepholes": True,
        "layer_norm": True,
        "recurrent_dropout": 0.2,
        "weight_drop": 0.2,
        "zoneout_h": 0.2,
        "zoneout_c": 0.2,
        "checkpoint": "every 2",
    },
}
CASES = [("LSTM", name, given) for name, given in (OPTIONS | LSTM_ALONE).items()]
CASES += [(kind, name, given) for kind in ("GRU", "RNN") for name, given in OPTIONS.items()]
CASES += [("RNN-relu", name, OPTIONS[name]) for name in ("plain", "layer_norm", "zoneout_h")]


def derivatives(kind, given, kernel, ragged, *, training=True, check=torch.autograd.gradcheck, **options):
    """gradcheck of one layer. ragged: "padded" (lengths, resets, every state, both directions), "packed" or "" for one way and plain."""
    torch.manual_seed(1)
    given = dict(given, kernel=kernel, dtype=torch.float64, bidirectional=bool(ragged))
    if kind == "RNN-relu":
        given["nonlinearity"] = "relu"
    layer = KINDS[kind](2, 3, **given).train(training)
    names = [name for name, _ in layer.named_parameters()]
    weights = [(p.detach() + 0.1 * torch.randn_like(p)).requires_grad_() for p in layer.parameters()]
    parts = layer.num_layers * (2 if ragged else 1)
    widths = [layer.proj_size or 3, 3][: 2 if kind == "LSTM" else 1]
    hx = [torch.randn(parts, 2, width, dtype=torch.float64, requires_grad=True) for width in widths]
    x = torch.randn(4, 2, 2, dtype=torch.float64, requires_grad=True)
    keywords = {}
    if ragged == "padded":
        keywords = {"lengths": torch.tensor([4, 2]), "states": True}
        keywords["reset"] = torch.tensor([[False, False, True, False], [True, False, False, True]])
    packed = pack_padded_sequence(x.detach(), [2, 4], enforce_sorted=False) if ragged == "packed" else None
    if packed is not None:
        x = packed.data.clone().requires_grad_()

    def outputs(x, *rest):
        torch.manual_seed(11)
        state = rest[: len(hx)]
        call = x if packed is None else PackedSequence(x, *packed[1:])
        arguments = (call, state if kind == "LSTM" else state[0])
        given_weights = dict(zip(names, rest[len(hx) :], strict=True))
        output, last, *every = torch.func.functional_call(layer, given_weights, arguments, keywords)
        output = output.data if packed is not None else output
        return (output, *(last if kind == "LSTM" else (last,)), *(part for state in sum(every, ()) for part in state))

    assert check(outputs, (x, *hx, *weights), **options)


@pytest.mark.parametrize(
    "ragged", ["", "padded", "packed"], ids=["one way", "lengths, resets, both ways", "packed, both ways"]
)
@pytest.mark.parametrize(("kind", "option", "given"), CASES, ids=[f"{kind}-{option}" for kind, option, _ in CASES])
@pytest.mark.parametrize("kernel", **by([row for row in KERNEL_ROWS if row.lengths]))
def test_first_derivatives(kernel, kind, option, given, ragged):
    # every entry by itself in a single layer of the fast kernel; the others along random directions
    entries = kernel.name == "cpu" and ragged != "packed" and "num_layers" not in given
    derivatives(kind, given, kernel.name, ragged, fast_mode=not entries)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("kernel", **by([row for row in KERNEL_ROWS if row.lengths]))
def test_zoneout_in_evaluation(kernel, kind):
    given = {"zoneout_h": 0.3, **({"zoneout_c": 0.2} if kind == "LSTM" else {})}
    derivatives(kind, given, kernel.name, "padded", training=False, fast_mode=True)


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        *((kind, option) for kind in ("LSTM", "GRU", "RNN") for option in ("dropout", "weight_drop")),
        ("LSTM", "coupled"),
    ],
)
def test_second_derivatives_of_what_a_layer_adds_to_a_scan(kind, option):
    given = (OPTIONS | LSTM_ALONE)[option]
    derivatives(kind, given, "auto", "padded", check=torch.autograd.gradgradcheck, fast_mode=True)

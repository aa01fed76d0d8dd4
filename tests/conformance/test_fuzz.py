"""Random layers on random batches: the kernel `cpu` against the loop, outputs, states and every gradient.

The same cases on every run (derandomize); many more of them under the mark `slow`. A failure prints the smallest case that fails.
"""

import contextlib
import copy
import re
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from recurra import nn
from tolerance import FUZZ, FUZZ_NORMED, error
from zoo import needs_core

pytestmark = needs_core
KINDS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
# around the widths of vectors and blocks, where tails begin and end
WIDTHS = st.one_of(st.integers(1, 20), st.sampled_from([31, 32, 33, 47, 48, 49, 63, 64, 65, 70]))
RATES = st.sampled_from([0.0, 0.0, 0.3, 1.0])


@st.composite
def layers(draw, kind):
    """Constructor arguments of a layer."""
    hidden = draw(WIDTHS)
    given = {
        "input_size": draw(WIDTHS),
        "hidden_size": hidden,
        "num_layers": draw(st.integers(1, 2)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
        "dtype": draw(st.sampled_from([torch.float64, torch.float32])),
        "layer_norm": draw(st.booleans()),
        "recurrent_dropout": draw(RATES),
        "weight_drop": draw(RATES),
        "zoneout_h": draw(RATES),
        "checkpoint": draw(st.sampled_from(["none", "none", "gates", "every 1", "every 3", "every 50"])),
    }
    if given["num_layers"] > 1:
        given["dropout"] = draw(RATES)
    if kind == "RNN":
        given["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    if kind == "LSTM":
        given["peepholes"] = draw(st.booleans())
        given["coupled"] = draw(st.booleans()) and not given["layer_norm"]
        given["zoneout_c"] = draw(RATES)
        given["proj_size"] = draw(st.sampled_from([0, 0, 1, hidden // 2, hidden - 1])) if hidden > 1 else 0
    return given


@st.composite
def batches(draw):
    """Shape and raggedness of a batch, and what is asked of it."""
    steps, rows = draw(st.integers(1, 9)), draw(st.one_of(st.integers(0, 9), st.sampled_from([15, 16, 17, 33, 250])))
    packed = rows > 0 and draw(st.integers(0, 3)) == 0
    ragged = packed or draw(st.booleans())
    least = 1 if packed else 0
    return {
        "steps": steps,
        "rows": rows,
        "packed": packed,
        "lengths": draw(st.lists(st.integers(least, steps), min_size=rows, max_size=rows)) if ragged else None,
        "resets": None if packed else draw(st.sampled_from([None, 0.1, 0.5, 1.0])),
        "states": not packed and draw(st.booleans()),
        "hx": draw(st.booleans()),
        "training": draw(st.booleans()),
        "grad": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**31)),
        "threads": draw(st.sampled_from([1, 2, 3])),  # where there is work enough for them
    }


@contextlib.contextmanager
def on_threads(number):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def answers(layer, batch, dtype):
    """Outputs, states and gradients of one call, by name; what is random is the batch's seed's."""
    torch.manual_seed(batch["seed"])
    steps, rows, lengths = batch["steps"], batch["rows"], batch["lengths"]
    x = torch.randn(steps, rows, layer.input_size, dtype=torch.float64)
    if lengths is not None:
        x[torch.arange(steps)[:, None] >= torch.tensor(lengths, dtype=torch.int64)] = float("nan")
    reset = None if batch["resets"] is None else torch.rand(rows, steps) < batch["resets"]
    parts = layer.num_layers * (2 if layer.bidirectional else 1)
    widths = [layer.proj_size or layer.hidden_size, layer.hidden_size][: 2 if layer.mode == "LSTM" else 1]
    hx = tuple(torch.randn(parts, rows, width, dtype=torch.float64).to(dtype).requires_grad_() for width in widths)
    x = (x.transpose(0, 1) if layer.batch_first else x).to(dtype).requires_grad_()
    keywords = {"reset": reset, "states": batch["states"]}
    call = x
    if batch["packed"]:
        call = pack_padded_sequence(x, lengths, layer.batch_first, enforce_sorted=False)
        keywords = {}
    elif lengths is not None:
        keywords["lengths"] = torch.tensor(lengths, dtype=torch.int64)
    state = None if not batch["hx"] else hx if len(hx) > 1 else hx[0]
    with torch.set_grad_enabled(batch["grad"]):
        output, last, *every = layer.train(batch["training"])(call, state, **keywords)
    output = output.data if isinstance(output, PackedSequence) else output
    last = last if isinstance(last, tuple) else (last,)
    named = {"output": output, **{f"last {i}": part for i, part in enumerate(last)}}
    named |= {f"every {k} {name}": part for k, s in enumerate(sum(every, ())) for name, part in s._asdict().items()}
    if batch["grad"]:
        leaves = {"x": x, **dict(layer.named_parameters())}
        leaves |= {f"hx {i}": part for i, part in enumerate(hx)} if batch["hx"] else {}
        loss = sum((part * torch.randn(part.shape, dtype=torch.float64).to(dtype)).sum() for part in named.values())
        grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        for (name, leaf), grad in zip(leaves.items(), grads, strict=True):
            named[f"gradient of {name}"] = torch.zeros_like(leaf) if grad is None else grad
    return named


def compare(kind, options, batch):
    torch.manual_seed(batch["seed"] % 1000)
    layer = KINDS[kind](**options, kernel="cpu")
    exact = copy.deepcopy(layer).double()
    exact.kernel = "loop"
    with on_threads(batch["threads"]):
        got = answers(layer, batch, options["dtype"])
    want = answers(exact, batch, torch.float64)
    limit = FUZZ[str(options["dtype"]).removeprefix("torch.")]
    if options.get("nonlinearity") == "relu" and options["dtype"] == torch.float32:
        # at a kink two roundings may take two sides: gradients are compared in float64
        want = {name: value for name, value in want.items() if not name.startswith("gradient")}
    wrong = {name: e for name in want if not (e := error(got[name], want[name])) <= limit}
    if wrong and options["layer_norm"]:
        rounded = [answers(moved(exact, seed).float(), batch, torch.float32) for seed in range(3)]
        share = FUZZ_NORMED * torch.finfo(options["dtype"]).eps / torch.finfo(torch.float32).eps
        most = {name: share * max(error(other[name], want[name]) for other in rounded) for name in wrong}
        wrong = {name: e for name, e in wrong.items() if not e <= limit + most[name]}
    assert not wrong, f"differs from the loop by more than {limit}: {wrong}"


def moved(layer, seed):
    """The layer with each weight moved by up to a rounding of float32, so that its roundings are others in each."""
    generator = torch.Generator().manual_seed(seed)
    layer = copy.deepcopy(layer)
    with torch.no_grad():
        for weight in layer.parameters():
            way = 2 * torch.rand(weight.shape, generator=generator, dtype=weight.dtype) - 1
            weight.mul_(1 + torch.finfo(torch.float32).eps * way)
    return layer


quick = settings(
    max_examples=120, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


@quick
@given(options=layers("LSTM"), batch=batches())
def test_lstm(options, batch):
    compare("LSTM", options, batch)


@quick
@given(options=layers("GRU"), batch=batches())
def test_gru(options, batch):
    compare("GRU", options, batch)


@quick
@given(options=layers("RNN"), batch=batches())
def test_rnn(options, batch):
    compare("RNN", options, batch)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_more(kind):
    settings(quick, max_examples=2000)(given(layers(kind), batches())(lambda o, b: compare(kind, o, b)))()


@pytest.mark.parametrize("kind", KINDS)
def test_threads(kind):
    """Two threads, three, and more than there is work for: the same from run to run, and within rounding."""
    options = {"input_size": 70, "hidden_size": 129, "bidirectional": True, "dtype": torch.float32, "layer_norm": False}
    batch = {"steps": 9, "rows": 17, "packed": False, "lengths": [*range(1, 10), *range(9, 1, -1)], "resets": 0.1}
    batch |= {"states": True, "hx": True, "training": True, "grad": True, "seed": 3}
    layer = KINDS[kind](**options, kernel="cpu")
    text = (Path(__file__).parents[2] / "csrc" / "model.cpp").read_text()
    worth = float(re.search(r"WORTH_A_THREAD = (\S+);", text)[1])
    assert sum(batch["lengths"]) * layer.weight_ih_l0.shape[0] * (70 + 129) > 2 * worth, "no work for three threads"
    with on_threads(1):
        one = answers(layer, batch, torch.float32)
    for threads in (2, 3, 8):
        with on_threads(threads):
            more, again = answers(layer, batch, torch.float32), answers(layer, batch, torch.float32)
        assert all(torch.equal(more[name], again[name]) for name in more), "two runs, two answers"
        assert all(error(more[name], one[name]) <= FUZZ["float32"] for name in one)

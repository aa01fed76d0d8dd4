"""Seven promises of a recurrent layer that no library tests, each of which some library has broken.

a  the gradient is that of the very call, random masks included: central differences with the generator set before each call
b  a compiled layer in training still drops: two calls differ, and each is the eager call with the same seed
c  ragged rows are their own runs, gradients included
d  a row has the same bits whoever stands beside it, NaN too
e  a sequence in pieces is the whole, and a cut in the graph is a cut in the gradient
f  a reset is a new sequence, gradients included
g  what stands in the padding changes nothing
"""

import itertools

import pytest
import torch

from recurra import nn
from tolerance import DROP_IN, PIECES, error
from zoo import KERNEL_ROWS, LAYER_ROWS, by, needs_core

KERNELS = pytest.mark.parametrize("kernel", **by([row for row in KERNEL_ROWS if row.lengths and row.reset]))
every_row = pytest.mark.parametrize("row", **by(LAYER_ROWS))
KINDS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
every_kind = pytest.mark.parametrize("kind", KINDS)
RANDOM = {
    "dropout": {"dropout": 0.4},
    "dropout of all": {"dropout": 1.0},
    "recurrent_dropout": {"recurrent_dropout": 0.4},
    "weight_drop": {"weight_drop": 0.4},
    "zoneout_h": {"zoneout_h": 0.4},
    "zoneout_c": {"zoneout_c": 0.4},
    "all": {"dropout": 0.3, "recurrent_dropout": 0.3, "weight_drop": 0.3, "zoneout_h": 0.3},
}
RANDOM_CASES = [(kind, name) for kind in KINDS for name in RANDOM if name != "zoneout_c" or kind == "LSTM"]
few_options = pytest.mark.parametrize(
    ("kind", "option"),
    [pytest.param(*case, marks=() if case[1] == "all" else pytest.mark.slow) for case in RANDOM_CASES],
)
every_option = pytest.mark.parametrize(("kind", "option"), RANDOM_CASES, ids=lambda v: v)


def make(kind, kernel="auto", layers=2, **options):
    torch.manual_seed(0)
    return KINDS[kind](5, 9, layers, **{"dtype": torch.float64, "kernel": kernel, **options})


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def start(layer, rows, seed=2):
    """A state that is nowhere zero."""
    parts = layer.num_layers * (2 if layer.bidirectional else 1)
    widths = [layer.proj_size or layer.hidden_size, layer.hidden_size][: 2 if layer.mode == "LSTM" else 1]
    return [noise(parts, rows, width, seed=seed + i) for i, width in enumerate(widths)]


def call(layer, x, hx=None, **keywords):
    """output and the final state as a list, whatever the layer."""
    hx = None if hx is None else tuple(hx) if layer.mode == "LSTM" else hx[0]
    output, last = layer(x, hx, **keywords)
    return [output, *(last if layer.mode == "LSTM" else (last,))]


def weighted(parts, seed=7):
    return sum((part * noise(*part.shape, seed=seed + i)).sum() for i, part in enumerate(parts))


# ---- a


@KERNELS
@every_option
def test_gradients_under_random_masks(kernel, kind, option):
    layer = make(kind, kernel.name, bidirectional=True, **RANDOM[option])
    x, hx = noise(6, 3, 5), start(layer, 3)
    leaves = [x, *hx, *layer.parameters()]
    for leaf in leaves:
        leaf.requires_grad_()

    def loss():
        torch.manual_seed(4)
        return weighted(call(layer, x, hx, lengths=[6, 2, 4]))

    grads = torch.autograd.grad(loss(), leaves, allow_unused=True)
    for turn in range(4):
        ways = [noise(*leaf.shape, seed=100 + 50 * turn + i) for i, leaf in enumerate(leaves)]
        slope = sum((g * way).sum() for g, way in zip(grads, ways, strict=True) if g is not None)
        values, step = [], 1e-5
        with torch.no_grad():
            for sign in (1, -2, 1):  # there, back over the middle to the other side, home
                for leaf, way in zip(leaves, ways, strict=True):
                    leaf.add_(way, alpha=sign * step)
                values.append(loss())
        assert error((values[0] - values[1]) / (2 * step), slope) < 1e-7  # the square of the step, and rounding over it


@KERNELS
@every_option
def test_masks_are_new_in_each_call_and_follow_the_seed(kernel, kind, option):
    layer = make(kind, kernel.name, **RANDOM[option])
    x = noise(6, 3, 5)
    torch.manual_seed(4)
    first, second = layer(x)[0], layer(x)[0]
    torch.manual_seed(4)
    assert torch.equal(layer(x)[0], first)
    assert torch.equal(first, second) == (option == "dropout of all")
    assert torch.equal(layer.eval()(x)[0], layer(x)[0])


# ---- b


@few_options  # each compiles, which takes seconds: those of one option alone under the mark `slow`
def test_compiled_training_still_draws(kind, option):
    torch._dynamo.reset()
    layer = make(kind, **RANDOM[option])
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = noise(6, 3, 5).requires_grad_()
    results = []
    for run in (compiled, layer):
        torch.manual_seed(4)
        outputs = [run(x)[0] for _ in range(2)]
        assert torch.equal(*outputs) == (option == "dropout of all"), "two calls in training, one answer"
        results.append([*outputs, *torch.autograd.grad(outputs[0].square().sum(), x)])
    assert all(error(a, b) <= DROP_IN for a, b in zip(*results, strict=True))
    layer.eval()
    assert torch.equal(compiled(x)[0], compiled(x)[0])


@pytest.mark.slow
@every_kind
def test_compiled_by_inductor_still_draws(kind):
    torch._dynamo.reset()
    layer = make(kind, **RANDOM["all"])
    compiled = torch.compile(layer, fullgraph=True)
    x = noise(6, 3, 5)
    torch.manual_seed(4)
    first, second = compiled(x)[0], compiled(x)[0]
    torch.manual_seed(4)
    assert not torch.equal(first, second)
    assert error(layer(x)[0], first) <= DROP_IN


# ---- c


@KERNELS
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@every_row
def test_ragged_rows_and_their_gradients(kernel, row, bidirectional):
    """The oracle is torch.nn, one row at a time and without padding; a row of no step gives its state back."""
    options = {"num_layers": 2, "bidirectional": bidirectional, "dtype": torch.float64, **row.options}
    ours, oracle = row.ours(5, 9, kernel=kernel.name, **options), row.oracle(5, 9, **options)
    oracle.load_state_dict(ours.state_dict())
    lengths = [7, 1, 0, 4, 7, 2]
    x, hx = noise(7, 6, 5), start(ours, 6)
    given = [part.clone().requires_grad_() for part in (x, *hx)]
    got = call(ours, given[0], given[1:], lengths=lengths)
    weighted(got).backward()
    want = [torch.zeros_like(part) for part in got]
    single = [part.clone().requires_grad_() for part in (x, *hx)]
    for b, length in enumerate(lengths):
        state = [part[:, b : b + 1] for part in single[1:]]
        parts = (
            call(oracle, single[0][:length, b : b + 1], state)
            if length
            else [got[0].new_zeros(0, 1, got[0].shape[2]), *state]
        )
        for i, part in enumerate(parts):
            place = want[i][:length, b : b + 1] if i == 0 else want[i][:, b : b + 1]
            place.copy_(part)
    weighted(want).backward()
    assert all(error(a, b) <= DROP_IN for a, b in zip(got, want, strict=True))
    assert all(error(a.grad, b.grad) <= DROP_IN for a, b in zip(given, single, strict=True))
    for name, weight in oracle.named_parameters():
        assert error(ours.get_parameter(name).grad, weight.grad) <= DROP_IN, name


# ---- d


def neighbours(kind, dtype, **options):
    layer = make(kind, bidirectional=True, dtype=dtype, **options)
    x, hx = noise(6, 19, 5).to(dtype), [part.to(dtype) for part in start(layer, 19)]
    lengths = torch.arange(19) % 6 + 1
    return layer, x, hx, lengths


@KERNELS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@every_kind
def test_a_neighbour_changes_no_bit(kernel, kind, dtype):
    """Every third row is NaN, another one huge: the bits of the others, and of the gradient of their x, stay."""
    layer, x, hx, lengths = neighbours(kind, dtype, kernel=kernel.name)
    clean = torch.arange(19) % 3 != 0
    results = []
    for bad in (0.0, float("nan"), 1e30):
        mixed = x.clone()
        mixed[:, ~clean] = bad
        mixed.requires_grad_()
        got = call(layer, mixed, hx, lengths=lengths)
        loss = sum(part[:, clean].square().sum() for part in got)
        results.append([*(part[:, clean] for part in got), torch.autograd.grad(loss, mixed)[0][:, clean]])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


@needs_core
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@every_kind
def test_a_row_alone_has_its_bits_of_the_batch(kind, dtype):
    layer, x, hx, lengths = neighbours(kind, dtype, kernel="cpu")
    with torch.no_grad():
        whole = call(layer, x, hx, lengths=lengths)
        for rows in ([0], [4], [18], [3, 11], list(range(5, 17))):
            parts = call(layer, x[:, rows], [part[:, rows] for part in hx], lengths=lengths[rows])
            assert all(torch.equal(a, b[:, rows]) for a, b in zip(parts, whole, strict=True)), rows


# ---- e


@KERNELS
@every_kind
def test_pieces_are_the_whole(kernel, kind):
    """Without a cut in the graph the gradient is that of the whole; with one, no gradient goes back over it. As torch.nn does."""
    ours, oracle = make(kind, kernel.name), getattr(torch.nn, kind)(5, 9, 2, dtype=torch.float64)
    oracle.load_state_dict(ours.state_dict())
    hx = start(ours, 3)
    for cut in (False, True):
        results = []
        for layer, pieces in ((ours, [4, 1, 6]), (oracle, [4, 1, 6]), (ours, [11]), (ours, [1] * 11)):
            if cut and len(pieces) != 3:
                continue
            x, state, outputs = noise(11, 3, 5).requires_grad_(), hx, []
            for piece in x.split(pieces):
                output, *state = call(layer, piece, state)
                outputs.append(output)
                state = [part.detach() for part in state] if cut else state
            loss = weighted([torch.cat(outputs)])
            grads = torch.autograd.grad(loss, [x, *layer.parameters()], retain_graph=True)
            results.append([torch.cat(outputs), *state, *grads])
            back = torch.autograd.grad(weighted(outputs[1:]), x)[0] if len(outputs) > 1 else x
            assert bool((back[: pieces[0]] == 0).all()) == cut
        assert all(error(a, b) <= PIECES for other in results[1:] for a, b in zip(other, results[0], strict=True))


# ---- f


@KERNELS
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@every_row
def test_resets_are_split_sequences_and_their_gradients(kernel, row, bidirectional):
    """The oracle is torch.nn on the pieces, each from nothing but the first, in a single layer (a stack is split layer by layer)."""
    options = {"bidirectional": bidirectional, "dtype": torch.float64, **row.options}
    ours, oracle = row.ours(5, 9, kernel=kernel.name, **options), row.oracle(5, 9, **options)
    oracle.load_state_dict(ours.state_dict())
    cuts = [[], [0], [3, 4], [1, 2, 8], [0, 6]]
    reset = torch.zeros(len(cuts), 9, dtype=torch.bool)
    for b, at in enumerate(cuts):
        reset[b, at] = True
    x, hx = noise(9, len(cuts), 5), start(ours, len(cuts))
    given = [part.clone().requires_grad_() for part in (x, *hx)]
    got = call(ours, given[0], given[1:], reset=reset)[0]
    weighted([got]).backward()
    single = [part.clone().requires_grad_() for part in (x, *hx)]
    rows = []
    for b, at in enumerate(cuts):
        edges = [0, *(a for a in at if a), 9]
        parts = []
        for begin, end in itertools.pairwise(edges):
            state = [part[:, b : b + 1] for part in single[1:]]
            # the forward direction starts from hx in the first piece unless it is reset; the backward one in the last
            keep = [begin == 0 and 0 not in at, end == 9][: 2 if bidirectional else 1]
            state = [part * torch.tensor(keep, dtype=part.dtype)[:, None, None] for part in state]
            parts.append(call(oracle, single[0][begin:end, b : b + 1], state)[0])
        rows.append(torch.cat(parts))
    want = torch.cat(rows, 1)
    weighted([want]).backward()
    assert error(got, want) <= DROP_IN
    assert all(error(a.grad, b.grad) <= DROP_IN for a, b in zip(given, single, strict=True))
    for name, weight in oracle.named_parameters():
        assert error(ours.get_parameter(name).grad, weight.grad) <= DROP_IN, name


# ---- g


@KERNELS
@pytest.mark.parametrize("option", ["plain", "layer_norm", "all", "every 2"])
@every_kind
def test_garbage_in_the_padding_changes_no_bit(kernel, kind, option):
    options = {"plain": {}, "layer_norm": {"layer_norm": True}, "every 2": {"checkpoint": "every 2"}, **RANDOM}[option]
    if kind == "LSTM" and option == "all":
        options = {**options, "zoneout_c": 0.3, "peepholes": True, "proj_size": 4}
    layer = make(kind, kernel.name, bidirectional=True, **options)
    lengths = torch.tensor([6, 1, 3, 0])
    padding = torch.arange(6)[:, None] >= lengths
    reset = noise(4, 6) > 0.7
    leaves, results = None, []
    for garbage in (0.0, float("nan"), float("inf"), 1e300):
        x = noise(6, 4, 5)
        x[padding] = garbage
        leaves = [x.requires_grad_(), *(part.requires_grad_() for part in start(layer, 4)), *layer.parameters()]
        state = leaves[1 : 1 + (2 if kind == "LSTM" else 1)]
        torch.manual_seed(4)
        output, last, states = layer(
            x, tuple(state) if kind == "LSTM" else state[0], lengths=lengths, reset=reset, states=True
        )
        parts = [output, *(last if kind == "LSTM" else (last,)), *(part for s in states for part in s)]
        grads = torch.autograd.grad(weighted(parts), leaves)
        assert (output[padding] == 0).all()
        assert (grads[0][padding] == 0).all()
        results.append([*parts, *grads])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))

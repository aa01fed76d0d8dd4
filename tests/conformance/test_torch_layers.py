"""What PyTorch asks of its recurrent layers beyond the ModuleInfo cases (test_torch_modules.py): the subjects of its test_nn.py, in our
words, and every one held against torch.nn itself in the same run."""

import copy
import inspect
import pickle

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

from tolerance import DROP_IN, error
from zoo import LAYER_ROWS, LayerRow, by

LSTM = next(row for row in LAYER_ROWS if row.name == "LSTM")
PROJECTED = LayerRow("LSTM-projected", LSTM.ours, LSTM.oracle, {"proj_size": 2})
ROWS = [*LAYER_ROWS, PROJECTED]
every_row = pytest.mark.parametrize("row", **by(ROWS))
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


def pair(row, *size, **options):
    """Ours and torch's with the same weights, float64 unless said otherwise."""
    options = {"dtype": torch.float64, **row.options, **options}
    made = []
    for kind in (row.ours, row.oracle):
        torch.manual_seed(0)
        made.append(kind(*(size or (5, 7, 2)), **options))
    return made


def state(layer, rows, seed=3, **options):
    """An initial state that is nowhere zero. `rows` None: of one unbatched sequence."""
    g = torch.Generator().manual_seed(seed)
    parts = layer.num_layers * (2 if layer.bidirectional else 1)
    widths = [layer.proj_size or layer.hidden_size, layer.hidden_size][: 2 if layer.mode == "LSTM" else 1]
    shapes = [(parts, width) if rows is None else (parts, rows, width) for width in widths]
    made = tuple(torch.randn(shape, generator=g, dtype=torch.float64).to(**options) for shape in shapes)
    return made if len(made) > 1 else made[0]


def tensors(result):
    output, last = result[:2]
    output = output.data if isinstance(output, PackedSequence) else output
    return [output, *(last if isinstance(last, tuple) else (last,))]


def weighted(result):
    """A sum in which every entry has its own weight."""
    return sum((v * torch.arange(v.numel(), dtype=v.dtype).view_as(v).cos()).sum() for v in tensors(result))


def agree(a, b, limit=DROP_IN):
    assert [v.shape for v in a] == [v.shape for v in b]
    assert max((error(x, y) for x, y in zip(a, b, strict=True)), default=0) <= limit


def same_grads(ours, oracle):
    for name, weight in oracle.named_parameters():
        grad = ours.get_parameter(name).grad
        assert (grad is None) == (weight.grad is None), name
        assert grad is None or error(grad, weight.grad) <= DROP_IN, name


def outcome(call):
    """What a call raises, as (kind, text), or None."""
    try:
        call()
    except Exception as error:
        return type(error), str(error)
    return None


# ---- arguments


WRONG_CALLS = {
    "width": lambda m: (torch.zeros(4, 3, 6), None),
    "width, one sequence": lambda m: (torch.zeros(4, 6), None),
    "no dimension of time": lambda m: (torch.zeros(5), None),
    "four dimensions": lambda m: (torch.zeros(1, 4, 3, 5), None),
    "no step": lambda m: (torch.zeros(0, 3, 5) if not m.batch_first else torch.zeros(3, 0, 5), None),
    "no step, one sequence": lambda m: (torch.zeros(0, 5), None),
    "state of other rows": lambda m: (torch.zeros(4, 3, 5), state(m, 2, dtype=torch.float32)),
    "state without rows": lambda m: (torch.zeros(4, 3, 5), state(m, None, dtype=torch.float32)),
    "state with rows, one sequence": lambda m: (torch.zeros(4, 5), state(m, 1, dtype=torch.float32)),
    "state in double": lambda m: (torch.zeros(4, 4, 5), state(m, 4)),
    "state elsewhere": lambda m: (torch.zeros(4, 4, 5), state(m, 4, dtype=torch.float32, device="meta")),
    "input elsewhere": lambda m: (torch.zeros(4, 4, 5, device="meta"), None),
    "double": lambda m: (torch.zeros(4, 3, 5, dtype=torch.float64), None),
    "half": lambda m: (torch.zeros(4, 3, 5, dtype=torch.float16), None),
    "packed width": lambda m: (pack_sequence([torch.zeros(4, 6)]), None),
    "packed double": lambda m: (pack_sequence([torch.zeros(4, 5, dtype=torch.float64)]), None),
    "packed state of other rows": lambda m: (pack_sequence([torch.zeros(4, 5)] * 2), state(m, 3, dtype=torch.float32)),
}


@pytest.mark.parametrize("wrong", WRONG_CALLS)
@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@every_row
def test_wrong_calls_get_torchs_errors(row, batch_first, wrong):
    found = []
    for layer in pair(row, batch_first=batch_first, bidirectional=True, dtype=torch.float32):
        x, hx = WRONG_CALLS[wrong](layer)
        found.append(outcome(lambda layer=layer, x=x, hx=hx: layer(x, hx)))
    if row.oracle is torch.nn.LSTM and wrong.startswith("packed"):
        # torch's LSTM does not check packed input: it accepts two of these and stumbles in an op over the third. Ours checks
        assert found[0] is not None
        assert found[0][0] in (ValueError, RuntimeError)
        return
    assert found[1] is not None
    if wrong == "state in double":  # torch stumbles in an op: "mat1 and mat2 must have the same dtype"
        found = [found[0][:1], found[1][:1]]
    assert found[0] == found[1]


@every_row
def test_every_wrong_size_of_the_state(row):
    """Each dimension of each part of the state, one too many and one too few."""
    ours, oracle = pair(row, 5, 7, 2, bidirectional=True)
    x = torch.zeros(4, 3, 5, dtype=torch.float64)
    good = state(ours, 3)
    good = good if isinstance(good, tuple) else (good,)
    for part in range(len(good)):
        for dim in range(3):
            for change in (-1, 1):
                shape = list(good[part].shape)
                shape[dim] += change
                bad = tuple(p if i != part else torch.zeros(shape, dtype=p.dtype) for i, p in enumerate(good))
                bad = bad if len(bad) > 1 else bad[0]
                found = [outcome(lambda m=m, bad=bad: m(x, bad)) for m in (ours, oracle)]
                assert found[1] is not None
                assert found[0] == found[1], f"part {part}, dimension {dim}, {change:+d}"


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 0},
        {"num_layers": -1},
        {"hidden_size": 0},
        {"input_size": 0},
        {"dropout": -0.1},
        {"dropout": 1.1},
        {"dropout": True},
        {"dropout": "0.5"},
        {"dropout": 0.5, "num_layers": 1},
        {"proj_size": -1},
        {"proj_size": 7},
        {"proj_size": 9},
        {"bias": 1},
        {"batch_first": 1},
        {"bidirectional": 3},
        {"hidden_size": 7.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("row", **by(LAYER_ROWS))
def test_wrong_options_get_torchs_errors_and_warnings(row, options):
    given = {"input_size": 5, "hidden_size": 7, "num_layers": 2, **row.options, **options}
    assert outcome(lambda: row.ours(**given)) == outcome(lambda: row.oracle(**given))


@every_row
def test_torchs_positional_arguments(row):
    """Torch's classes take *args: their order is that of RNNBase without mode (and RNN's nonlinearity after num_layers)."""
    order = [5, 7, 2, False, True, 0.25, True]
    if row.oracle is torch.nn.RNN:
        order.insert(3, row.options.get("nonlinearity", "tanh"))
    if row is PROJECTED:
        order.append(2)
    ours, oracle = row.ours(*order), row.oracle(*order)
    assert repr(ours) == repr(oracle)
    assert list(ours.state_dict()) == list(oracle.state_dict())
    ours_only = [p for p in inspect.signature(row.ours).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert {"kernel", "layer_norm", "zoneout_h"} <= {p.name for p in ours_only}
    assert inspect.signature(row.ours.forward).parameters["lengths"].kind is inspect.Parameter.KEYWORD_ONLY


# ---- states and lengths


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@every_row
def test_initial_state(row, bidirectional):
    ours, oracle = pair(row, bidirectional=bidirectional)
    x = torch.randn(6, 3, 5, dtype=torch.float64)
    hx = state(ours, 3)
    zero = tuple(torch.zeros_like(p) for p in hx) if isinstance(hx, tuple) else torch.zeros_like(hx)
    agree(tensors(ours(x, hx)), tensors(oracle(x, hx)))
    agree(tensors(ours(x, zero)), tensors(ours(x)), 0)
    wide = state(ours, 1)
    wide = tuple(p.expand(-1, 3, -1) for p in wide) if isinstance(wide, tuple) else wide.expand(-1, 3, -1)
    agree(tensors(ours(x, wide)), tensors(oracle(x, wide)))
    if isinstance(hx, tuple):
        agree(tensors(ours(x, list(hx))), tensors(oracle(x, hx)))


@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("lengths", [[6, 4, 1], [2, 6, 3, 6], [5, 5], [1]], ids=str)
@every_row
def test_packed_sequences_and_their_gradients(row, lengths, bidirectional, batch_first):
    ours, oracle = pair(row, bidirectional=bidirectional, batch_first=batch_first)
    ordered = lengths == sorted(lengths, reverse=True)
    results = []
    for layer in (ours, oracle):
        torch.manual_seed(1)
        x = torch.randn(len(lengths), 6, 5, dtype=torch.float64)
        x = (x if batch_first else x.transpose(0, 1)).requires_grad_()
        hx = state(ours, len(lengths))
        leaves = [p.requires_grad_() for p in (hx if isinstance(hx, tuple) else (hx,))]
        packed = pack_padded_sequence(x, lengths, batch_first, enforce_sorted=ordered)
        result = layer(packed, hx)
        assert isinstance(result[0], PackedSequence)
        for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
            assert getattr(result[0], name) is getattr(packed, name)
        assert (result[0].sorted_indices is None) == ordered
        padded, found = pad_packed_sequence(result[0], batch_first, padding_value=-2.0, total_length=8)
        assert found.tolist() == lengths
        weighted(result).backward()
        results.append([padded, *tensors(result), x.grad, *(p.grad for p in leaves)])
    agree(*results)
    same_grads(ours, oracle)


@every_row
def test_packed_is_padded_with_lengths(row):
    layer, _ = pair(row, bidirectional=True)
    x, lengths = torch.randn(6, 3, 5, dtype=torch.float64), [2, 6, 3]
    hx = state(layer, 3)
    packed, last = layer(pack_padded_sequence(x, lengths, enforce_sorted=False), hx)
    agree(tensors((pad_packed_sequence(packed)[0], last)), tensors(layer(x, hx, lengths=lengths)))


@every_row
def test_no_row_at_all(row):
    results = []
    for layer in pair(row, bidirectional=True):
        x = torch.zeros(4, 0, 5, dtype=torch.float64, requires_grad=True)
        result = layer(x, state(layer, 0))
        weighted(result).backward()
        results.append([*tensors(result), x.grad])
        assert all((p.grad == 0).all() for p in layer.parameters())
    agree(*results)


# ---- dropout


@every_row
def test_dropout_is_between_the_layers(row):
    layer, _ = pair(row, 5, 8, 2, dropout=0.5)
    first = row.ours(5, 8, 1, dtype=torch.float64, **row.options)
    second = row.ours(layer.proj_size or 8, 8, 1, dtype=torch.float64, **row.options)
    for name, value in layer.state_dict().items():
        one, k = (first, 0) if "_l0" in name else (second, 1)
        one.get_parameter(name.replace(f"_l{k}", "_l0")).data.copy_(value)
    x = torch.randn(200, 9, 5, dtype=torch.float64)
    agree(tensors(layer.eval()(x))[:1], tensors(second(first(x)[0]))[:1])
    out = layer.train()(x)
    assert not torch.equal(out[0], layer(x)[0])
    # nothing is dropped before the first layer or after the last: the first layer's last state and the signs of the last output stay
    last = [tensors(out)[1][0], tensors(first(x))[1][0]]
    agree(last[:1], last[1:])
    assert (layer.train()(x)[0] == 0).sum() <= (second(first(x)[0])[0] == 0).sum() + (row.name == "RNN-relu") * out[
        0
    ].numel()
    # p = 1 leaves zeros between, not NaN
    layer.dropout = 1.0
    agree(tensors(layer(x))[:1], tensors(second(torch.zeros_like(first(x)[0])))[:1])
    # every dropped value leaves its mark, and the mean stays: E[mask / (1 - p)] = 1
    layer.dropout = 0.25
    for p in second.parameters():
        p.data.zero_()
    assert error(layer.eval()(x)[0].mean(), layer.train()(x)[0].mean()) < 0.1


@every_row
def test_dropout_follows_the_default_generator(row):
    layer, _ = pair(row, dropout=0.5)
    x = torch.randn(6, 3, 5, dtype=torch.float64)

    def three(layer):
        return [layer(x)[0] for _ in range(3)]

    torch.manual_seed(3)
    want = three(layer)
    assert not torch.equal(want[0], want[1])
    for twin in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.manual_seed(3)
        assert all(torch.equal(a, b) for a, b in zip(three(twin), want, strict=True))
    torch.manual_seed(3)
    layer(x)
    saved = torch.get_rng_state()
    layer(x)
    torch.set_rng_state(saved)
    assert torch.equal(layer(x)[0], want[1]), "a resumed run goes on where it was"
    # evaluation draws nothing
    torch.manual_seed(3)
    layer.eval()(x)
    layer.train()
    assert all(torch.equal(a, b) for a, b in zip(three(layer), want, strict=True))


@every_row
def test_dropout_is_what_backward_saw(row):
    """Gradients of the very masks that the forward pass drew: backward twice, and against the loop with the same seed."""
    layer, _ = pair(row, dropout=0.5)
    grads = []
    for kernel in ("auto", "loop"):
        layer.kernel = kernel
        layer.zero_grad()
        x = torch.randn(6, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
        torch.manual_seed(3)
        loss = weighted(layer(x))
        loss.backward(retain_graph=True)
        once = [p.grad.clone() for p in (x, *layer.parameters())]
        loss.backward()
        agree([p.grad for p in (x, *layer.parameters())], [2 * g for g in once])
        grads.append(once)
    agree(*grads)

"""Promise 2 for the layers of text: both directions, embeddings, softmax and pooling give a row the same bits, whatever is beside it."""

import numpy as np
import pytest
import torch

from recurra.errors import DataError, ModelFileError
from recurra.nn import attention as torch_attention
from recurra.runtime import layers, plain
from recurra.runtime.attention import ADDITIVE, Attention
from recurra.runtime.pooling import PARTS, Pooling
from tolerance import RUNTIME, error
from zoo import CELL_ROWS, by, needs_core


@pytest.fixture(params=[pytest.param("core", marks=needs_core), "numpy"])
def backend(request, monkeypatch):
    """The C++ runtime and its numpy stand-in: the promise holds for both."""
    if request.param == "numpy":
        monkeypatch.setattr(layers, "_core", None)
    return request.param


def same(a, b):
    """Bit for bit, NaN and the sign of zero included."""
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def make(row, inputs, hidden, depth):
    """The runtime's stack of both directions and torch's, float64, with the same weights."""
    torch.manual_seed(hidden * 10 + depth)
    oracle = row.oracle(inputs, hidden, depth, batch_first=True, bidirectional=True)
    weights = {name: value.detach().numpy() for name, value in oracle.state_dict().items()}
    return layers.Bidirectional(row.runtime, weights, layers=depth), oracle.double()


def ragged(rows, frames, width, seed=0):
    """Frames and lengths (0, 1 and all of them among them), with NaN where nothing is."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, frames, width)).astype(np.float32)
    lengths = rng.integers(0, frames + 1, rows)
    lengths[:3] = (frames, 1, 0)[: min(rows, 3)]
    for b, length in enumerate(lengths):
        x[b, length:] = np.nan
    return x, lengths


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("hidden", [1, 7, 63])
@pytest.mark.parametrize("row", **by(CELL_ROWS))
def test_both_directions_are_torch(backend, row, hidden, depth):
    stack, oracle = make(row, 5, hidden, depth)
    x, lengths = ragged(6, 9, 5)
    y = stack(x, lengths)
    assert y.shape == (6, 9, 2 * hidden)
    for b, length in enumerate(lengths):
        assert (y[b, length:] == 0).all()
        if length:
            want, _ = oracle(torch.from_numpy(x[b : b + 1, :length]).double())
            assert error(y[b : b + 1, :length], want) <= RUNTIME


@pytest.mark.parametrize("row", **by(CELL_ROWS))
def test_both_directions_of_a_row_are_alone(backend, row):
    stack, _ = make(row, 5, 7, 2)
    x, lengths = ragged(64, 11, 5)
    x[::3] = np.nan
    whole = stack(x, lengths)
    for b in (1, 4, 62):
        alone = stack(x[b : b + 1, : lengths[b]])
        assert same(whole[b : b + 1, : lengths[b]], alone)
    for batch in ([1, 4], [62, 4, 1], list(range(1, 64, 9))):
        assert same(stack(x[batch], lengths[batch]), whole[batch])


def test_both_directions_say_what_is_wrong():
    one_way = {name: value.numpy() for name, value in torch.nn.GRU(5, 7).state_dict().items()}
    with pytest.raises(ModelFileError, match="weight_ih_l0_reverse is missing"):
        layers.Bidirectional("gru", one_way, layers=1)
    weights = {name: value.numpy() for name, value in torch.nn.GRU(5, 7, 2, bidirectional=True).state_dict().items()}
    with pytest.raises(ModelFileError, match="layer 1 must read 14 values"):
        layers.Bidirectional("gru", weights | {"weight_ih_l1": np.zeros((21, 13))}, layers=2)
    stack = layers.Bidirectional("gru", weights, layers=2)
    with pytest.raises(DataError, match=r"\[rows, frames, 5\], not \[2, 3, 4\]"):
        stack(np.zeros((2, 3, 4)))
    with pytest.raises(DataError, match="between 0 and 3, not"):
        stack(np.zeros((2, 3, 5)), np.array([4, 0]))
    assert stack(np.zeros((0, 3, 5))).shape == (0, 3, 14)


def test_embedding():
    weight = np.arange(12.0).reshape(4, 3)
    look = layers.Embedding(weight)
    assert np.array_equal(look(np.array([[3, 0]])), weight[[[3, 0]]])
    assert look(np.zeros((2, 0), np.int64)).shape == (2, 0, 3)
    for bad in ([4], [-1], [0.5]):
        with pytest.raises(DataError, match=r"between 0 and 3, not"):
            look(np.array(bad))


@pytest.mark.parametrize("classes", [1, 2, 3, 7, 64, 1001])
def test_softmax_is_exact_and_alone(classes):
    rng = np.random.default_rng(classes)
    x = (rng.standard_normal((64, classes)) * 10).astype(np.float32)
    x[::5] = np.nan
    x[1, : classes // 2] = -np.inf
    whole = layers.softmax(x)
    kept = np.flatnonzero(np.arange(64) % 5)
    want = torch.softmax(torch.from_numpy(x[kept]).double(), -1)
    assert error(whole[kept], want) <= RUNTIME
    assert np.isnan(whole[::5]).all()
    for batch in ([1], kept[:7].tolist(), kept.tolist()):
        assert same(layers.softmax(x[batch]), whole[batch])
        assert same(layers.sigmoid(x[batch]), layers.sigmoid(x)[batch])
    assert same(layers.softmax(x.reshape(4, 16, classes)).reshape(64, classes), whole)


def test_exp_of_the_runtime():
    x = np.concatenate([np.linspace(-87, 0, 10_001), [-87.1, -1e30, -np.inf, np.nan]]).astype(np.float32)
    got = plain.exp(x)
    exact = np.exp(x.astype(np.float64))
    assert (np.abs(got - exact)[:10_001] / exact[:10_001]).max() < 3e-7  # measured 9.4e-8
    assert np.array_equal(got[10_001:], [0, 0, 0, np.nan], equal_nan=True)


def pooling(kind, width, backward=0):
    rng = np.random.default_rng(1)
    score = layers.Linear(rng.standard_normal((1, width)), None)
    return Pooling(kind, width, backward=backward, score=score), score


def oracle(kind, y, length, backward, score):
    """What pooling means, written out in float64 for one row."""
    width = y.shape[1]
    if not length:
        return np.zeros(width * len(PARTS[kind]))
    y = y[:length].astype(np.float64)
    a = torch.softmax(torch.from_numpy(score(y.astype(np.float32))[:, 0]).double(), 0).numpy()
    parts = {
        "last": np.concatenate([y[-1, : width - backward], y[0, width - backward :]]),
        "max": y.max(0),
        "mean": y.mean(0),
        "attention": a @ y,
    }
    return np.concatenate([parts[part] for part in PARTS[kind]])


@pytest.mark.parametrize("backward", [0, 3])
@pytest.mark.parametrize("kind", list(PARTS))
def test_pooling_is_what_it_says(backend, kind, backward):
    pool, score = pooling(kind, 7, backward)
    y, lengths = ragged(20, 9, 7)
    got = pool.read(pool(pool.start(20), y, lengths))
    assert got.shape == (20, pool.outputs)
    assert got.dtype == np.float32
    want = np.stack([oracle(kind, y[b], lengths[b], backward, score) for b in range(20)])
    assert error(got, want) <= RUNTIME


@pytest.mark.parametrize("kind", list(PARTS))
def test_pooling_of_a_row_is_alone_and_in_any_pieces(backend, kind):
    pool, _ = pooling(kind, 7)
    y, lengths = ragged(64, 11, 7)
    y[::3] = np.nan
    whole = pool.read(pool(pool.start(64), y, lengths))
    for rows in ([1], [4], [62], [62, 4, 1], list(range(1, 64, 9))):
        longest = lengths[rows].max()
        assert same(pool.read(pool(pool.start(len(rows)), y[rows, :longest], lengths[rows])), whole[rows])
    for b in (1, 4, 62):
        state, before = pool.start(1), pool.start(1)
        for t in range(lengths[b]):
            state = pool(state, y[b : b + 1, t : t + 1])
        assert same(pool.read(state), whole[b : b + 1])
        assert all(same(pool.start(1)[name], before[name]) for name in before)


def test_pooling_says_what_is_wrong():
    with pytest.raises(ModelFileError, match="not 'median'"):
        Pooling("median", 3)
    with pytest.raises(ModelFileError, match="needs its scores"):
        Pooling("attention", 3)


@pytest.mark.parametrize("size", [1, 2, 7, 8, 63, 257, 5003])
def test_log_softmax_is_exact_and_alone(backend, size):
    rng = np.random.default_rng(size)
    x = (rng.standard_normal((12, size)) * 10).astype(np.float32)
    x[::5] = np.nan
    x[1, : size // 2] = -np.inf
    x[2] *= 1e4
    whole = layers.log_softmax(x)
    assert whole.dtype == np.float32
    kept = np.flatnonzero(np.arange(12) % 5)
    want = torch.log_softmax(torch.from_numpy(x[kept]).double(), -1).numpy()
    finite = np.isfinite(want)
    assert (np.isfinite(whole[kept]) == finite).all()
    assert error(whole[kept][finite], torch.from_numpy(want[finite])) <= RUNTIME
    assert np.isnan(whole[::5]).all()
    for batch in ([1], kept[:7].tolist(), kept.tolist()):
        assert same(layers.log_softmax(x[batch]), whole[batch])
    assert same(layers.log_softmax(x.reshape(3, 4, size)).reshape(12, size), whole)


def attention_of(score, size, memory, coverage):
    """The runtime's attention and nn's, of random weights: queries and memory of the sizes that the score can compare."""
    torch.manual_seed(size)
    theirs = torch_attention.Attention(size, memory, score=score, size=size, window=3, coverage=coverage)
    with torch.no_grad():
        for part in theirs.parameters():
            part.copy_(torch.randn(part.shape) / part.shape[-1] ** 0.5)
    weights = {name: value.detach().numpy() for name, value in theirs.state_dict().items()}
    return Attention({"score": score, "heads": 1, "coverage": coverage}, weights), theirs.double()


@pytest.mark.parametrize("size", [1, 7, 63, 130])
@pytest.mark.parametrize("score", ["dot", "scaled", "general", *ADDITIVE, *(f"{score} covered" for score in ADDITIVE)])
def test_attention_is_torch_whatever_is_beside_it(backend, score, size):
    score, *coverage = score.split()
    memory = size if score in ("dot", "scaled") else size + 5
    ours, theirs = attention_of(score, size, memory, bool(coverage))
    rng = np.random.default_rng(size)
    states = [rng.uniform(-1, 1, (n, memory)).astype(np.float32) for n in (9, 1, 17)]
    memories = [ours.read(one) for one in states]
    of = np.array([2, 0, 2, 1, 0])
    query = rng.uniform(-1, 1, (5, size)).astype(np.float32)
    past = np.zeros((5, 17), np.float32)
    for row, k in enumerate(of):
        past[row, : len(states[k])] = rng.random(len(states[k]))
    context, weights = ours.attend_all(ours.ask(query), memories, of, past)
    for row, k in enumerate(of):
        n = len(states[k])
        read = theirs.read(torch.from_numpy(states[k][None]).double(), torch.tensor([n]))
        asked, before = (torch.from_numpy(given[row : row + 1]).double() for given in (query, past[:, :n]))
        want = theirs(asked[None], read, before)
        assert error(context[row], want[0][0, 0]) <= RUNTIME
        assert error(weights[row, :n], want[1][0, 0]) <= RUNTIME
        alone = ours.attend_all(ours.ask(query[row : row + 1]), [memories[k]], np.array([0]), past[row : row + 1, :n])
        assert same(alone[0][0], context[row])
        assert same(alone[1][0], weights[row, :n])
        assert not weights[row, n:].any()
        assert weights[row].sum() == pytest.approx(1, abs=1e-5)

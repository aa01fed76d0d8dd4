"""Attention against loops in float64 written from the equations, and against torch's multi-head attention."""

import math

import pytest
import torch

from recurra.errors import DataError, RecipeError
from recurra.nn.attention import ADDITIVE, SCORES, Attention, Memory

torch.set_num_threads(1)
CASES = [(score, False) for score in SCORES] + [(score, True) for score in ADDITIVE]
LENGTHS = [5, 1, 7]


def made(score, coverage=False, memory=6, **options):
    """Attention of queries of 6 numbers, every parameter drawn, float64."""
    torch.manual_seed(0)
    found = Attention(6, memory, score=score, size=4, coverage=coverage, window=3, **options).double()
    with torch.no_grad():
        for part in found.parameters():
            part.copy_(torch.randn(part.shape, dtype=torch.float64))
    return found


def data(memory=6, rows=LENGTHS, steps=3):
    g = torch.Generator().manual_seed(1)
    size = (len(rows), max(rows), memory)
    memory = torch.randn(size, generator=g, dtype=torch.float64)
    for i, n in enumerate(rows):
        memory[i, n:] = torch.nan
    return torch.randn(len(rows), steps, 6, generator=g, dtype=torch.float64), memory, torch.tensor(rows)


def score_of(attention, q, memory, s, last, total):
    """One score, from the equation: of query q [Q] and step s of a row's memory [S, M], with weights [S] of the step before and in sum."""
    m = memory[s]
    if attention.score == "none":
        return q.new_tensor(0.0 if s == len(memory) - 1 else -math.inf)
    if attention.score in ("dot", "scaled"):
        return q @ m / (math.sqrt(len(q)) if attention.score == "scaled" else 1)
    if attention.score == "general":
        return q @ attention.key.weight @ m
    x = attention.query.weight @ q + attention.key.weight @ m + attention.b
    if attention.score == "location":
        seen = total if attention.covers else last
        for k in (-1, 0, 1):
            if 0 <= s + k < len(seen):
                x = x + attention.location.weight[:, 0, k + 1] * seen[s + k]
    elif attention.covers:
        x = x + attention.coverage * total[s]
    v = attention.v
    return (attention.g * v / v.square().sum().sqrt() if attention.score == "normed" else v) @ x.tanh()


def looped(attention, query, memory, n):
    """Contexts [T, M] and weights [T, n] of one row."""
    last = total = torch.zeros(n, dtype=torch.float64)
    contexts, every = [], []
    for q in query:
        scores = torch.stack([score_of(attention, q, memory[:n], s, last, total) for s in range(n)])
        last = scores.exp() / scores.exp().sum()
        total = total + last
        contexts.append(sum(last[s] * memory[s] for s in range(n)))
        every.append(last)
    return torch.stack(contexts), torch.stack(every)


@pytest.mark.parametrize(("score", "coverage"), [case for case in CASES if case[0] != "heads"])
def test_against_the_equations(score, coverage):
    attention = made(score, coverage)
    query, memory, lengths = data()
    context, weights, _ = attention(query, attention.read(memory, lengths))
    assert context.shape == (3, 3, attention.outputs)
    for i, n in enumerate(LENGTHS):
        contexts, every = looped(attention, query[i], memory[i], n)
        torch.testing.assert_close(context[i], contexts)
        torch.testing.assert_close(weights[i, :, :n], every)
        assert (weights[i, :, n:] == 0).all()


@pytest.mark.parametrize(("score", "memory"), [("general", 5), ("additive", 5), ("heads", 5)])
def test_the_memory_has_a_width_of_its_own(score, memory):
    attention = made(score, memory=memory)
    query, values, lengths = data(memory)
    context, weights, _ = attention(query, attention.read(values, lengths))
    assert context.shape == (3, 3, 4 if score == "heads" else memory)
    torch.testing.assert_close(weights.sum(2), torch.ones(3, 3, dtype=torch.float64))


@pytest.mark.parametrize("heads", [1, 2, 6])
def test_heads_are_torchs(heads):
    torch.manual_seed(0)
    attention = Attention(6, 5, score="heads", heads=heads).double()
    other = torch.nn.MultiheadAttention(6, heads, kdim=5, vdim=5, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        for name in ("query", "key", "value"):
            getattr(other, f"{name[0]}_proj_weight").copy_(getattr(attention, name).weight)
        other.in_proj_bias.copy_(torch.cat([attention.query.bias, attention.key.bias, attention.value.bias]))
        other.out_proj.load_state_dict(attention.out.state_dict())
    query, memory, lengths = data(5)
    memory = memory.nan_to_num()
    context, weights, _ = attention(query, attention.read(memory, lengths))
    padding = torch.arange(7) >= lengths.unsqueeze(1)
    wanted, mean = other(query, memory, memory, key_padding_mask=padding)
    torch.testing.assert_close(context, wanted)
    torch.testing.assert_close(weights, mean)


def test_location_is_a_plain_convolution_over_the_last_weights():
    attention = made("location")
    _, memory, lengths = data()
    read = attention.read(memory, lengths)
    past = torch.rand(3, 7, dtype=torch.float64)
    added = torch.nn.functional.conv1d(past.unsqueeze(1), attention.location.weight, padding=1).transpose(1, 2)
    query = data()[0][:, :1]
    _, weights, after = attention(query, read, past)
    plain = made("additive")
    plain.load_state_dict({name: value for name, value in attention.state_dict().items() if "location" not in name})
    _, wanted, _ = plain(query, Memory(read.values, read.keys + added, read.valid))
    torch.testing.assert_close(weights, wanted)
    assert torch.equal(after, weights[:, 0])


def test_coverage_is_what_location_sees_in_the_middle():
    location, additive = made("location", coverage=True), made("additive", coverage=True)
    with torch.no_grad():
        location.location.weight.zero_()
        location.location.weight[:, 0, 1] = additive.coverage
        for name in ("query.weight", "key.weight", "b", "v"):
            location.get_parameter(name).copy_(additive.get_parameter(name))
    query, memory, lengths = data()
    for found, wanted in zip(*(a(query, a.read(memory, lengths)) for a in (location, additive)), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(("score", "coverage"), CASES)
def test_step_by_step_is_the_whole(score, coverage):
    attention = made(score, coverage)
    query, memory, lengths = data(steps=5)
    read = attention.read(memory, lengths)
    whole = attention(query, read)
    past, contexts, every = None, [], []
    for t in range(5):
        context, weights, past = attention(query[:, t : t + 1], read, past)
        contexts.append(context)
        every.append(weights)
    torch.testing.assert_close((torch.cat(contexts, 1), torch.cat(every, 1), past), whole)


@pytest.mark.parametrize(("score", "coverage"), [case for case in CASES if case[0] != "none"])
def test_nan_in_the_padding_changes_nothing(score, coverage):
    attention = made(score, coverage)
    query, memory, lengths = data()
    found = []
    for filled in (memory, memory.nan_to_num(3.0)):
        attention.zero_grad()
        memory, query = filled.clone().requires_grad_(), query.detach().requires_grad_()
        context, weights, _ = attention(query, attention.read(memory, lengths))
        (context.square().sum() + (weights * torch.arange(7)).sum()).backward()
        found.append([context, weights, query.grad, memory.grad, *(part.grad for part in attention.parameters())])
    for a, b in zip(*found, strict=True):
        assert torch.isfinite(a).all()
        assert torch.equal(a, b)


@pytest.mark.parametrize(("score", "coverage"), CASES)
def test_gradients(score, coverage):
    attention = made(score, coverage)
    query, memory, lengths = data(rows=[3, 2], steps=2)

    def loss(query, memory):
        return attention(query, attention.read(memory, lengths))[:2]

    assert torch.autograd.gradcheck(loss, (query.requires_grad_(), memory.nan_to_num().requires_grad_()))


@pytest.mark.parametrize(("score", "coverage"), [case for case in CASES if case[0] != "none"])
def test_what_was_not_seen_yet_gets_no_weight(score, coverage):
    attention = made(score, coverage)
    query, memory, lengths = data(rows=[6, 2], steps=3)
    _, weights, _ = attention(
        query, attention.read(memory, lengths), there=torch.arange(memory.shape[1]) < torch.tensor([[1], [2], [4]])
    )
    assert weights.ne(0).sum(2).tolist() == [[1, 2, 4], [1, 2, 2]]
    past = None
    for t, n in enumerate((1, 2, 4)):
        read = attention.read(memory[:, :n], lengths.clamp(max=n))
        past = None if past is None else torch.nn.functional.pad(past, (0, n - past.shape[1]))
        _, alone, past = attention(query[:, t : t + 1], read, past)
        torch.testing.assert_close(weights[:, t : t + 1, :n], alone)


def test_a_row_of_one_step_pools():
    """As attention pooling uses it: one query for every row."""
    attention = made("additive")
    _, memory, lengths = data()
    context, weights, _ = attention(torch.zeros(3, 1, 6, dtype=torch.float64), attention.read(memory, lengths))
    torch.testing.assert_close(context[1, 0], memory[1, 0])
    assert weights[1, 0].tolist() == [1.0] + [0.0] * 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"score": "cosine"}, "the scores of attention are dot, .* not 'cosine'"),
        ({"score": "dot"}, "needs queries as wide as the memory, not 6 and 5: use 'general'"),
        ({"score": "scaled"}, "not 6 and 5"),
        ({"score": "general", "coverage": True}, "coverage goes with the scores additive, normed, location"),
        ({"score": "heads", "heads": 4}, "heads = 4: .* divides 6"),
        ({"score": "additive", "heads": 2}, "heads = 2: .* every other score 1"),
        ({"score": "location", "window": 4}, "must be odd.* not 4"),
    ],
)
def test_what_does_not_go_together_is_refused(options, words):
    with pytest.raises(RecipeError, match=words):
        Attention(6, 5, **options)


def test_a_row_without_a_step_is_refused():
    with pytest.raises(DataError, match="at least 1 valid step"):
        Attention(6, 6).read(torch.zeros(2, 3, 6), torch.tensor([2, 0]))

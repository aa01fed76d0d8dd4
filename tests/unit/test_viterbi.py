"""Linear chains against the sum over all sequences, one by one."""

from itertools import product

import numpy as np
import pytest

from recurra.errors import DataError, ModelFileError
from recurra.search.viterbi import Chain


def chain_of(rng, k, forbidden=0.2):
    """A random chain of k tags some of whose transitions are forbidden; tag 0 may always follow and be followed."""
    parts = [rng.normal(size=shape) * 2 for shape in ((k, k), k, k)]
    for part in parts:
        ban = rng.random(part.shape) < forbidden
        ban[0] = False
        ban[..., 0] = False
        part[ban] = -np.inf
    return Chain(*parts)


def every(chain, scores):
    """All sequences [N, T] and their scores [N]."""
    paths = np.array(list(product(range(chain.size), repeat=len(scores))))
    total = chain.start[paths[:, 0]] + chain.end[paths[:, -1]]
    total = total + scores[np.arange(len(scores)), paths].sum(1)
    return paths, total + chain.transitions[paths[:, :-1], paths[:, 1:]].sum(1)


CASES = [(k, t, seed) for k, t in [(1, 1), (1, 4), (2, 1), (3, 5), (4, 4), (5, 3)] for seed in range(4)]


@pytest.mark.parametrize(("k", "t", "seed"), CASES)
def test_against_every_sequence(k, t, seed):
    rng = np.random.default_rng(seed)
    chain, scores = chain_of(rng, k), rng.normal(size=(t, k)) * 3
    paths, total = every(chain, scores)
    order = np.argsort(-total, kind="stable")
    best, score = chain.best(scores)
    assert best.tolist() == paths[order[0]].tolist()
    assert score == pytest.approx(total[order[0]], abs=1e-12)

    n = 7
    possible = order[: min(n, int((total > -np.inf).sum()))]
    found, worth = chain.n_best(scores, n)
    np.testing.assert_array_equal(found, paths[possible])
    np.testing.assert_allclose(worth, total[possible], atol=1e-12)

    assert chain.log_z(scores) == pytest.approx(np.logaddexp.reduce(total), abs=1e-12)
    p = np.exp(total - total.max())
    p /= p.sum()
    marginals = np.array([[p[paths[:, step] == tag].sum() for tag in range(k)] for step in range(t)])
    np.testing.assert_allclose(chain.marginals(scores), marginals, atol=1e-12)

    spans, wanted = [], []
    for first in range(t):
        for end in range(first + 1, t + 1):
            after = rng.random(k) < 0.5
            inside = (paths[:, first:end] == best[first:end]).all(1)
            follows = after[paths[:, end]] if end < t else True
            spans.append((first, end, after))
            wanted.append(p[inside & follows].sum())
    np.testing.assert_allclose(chain.spans(scores, best, spans), wanted, atol=1e-12)


@pytest.mark.parametrize("ends", [False, True])
def test_what_is_decided_online_is_the_most_probable_by_then(ends):
    rng = np.random.default_rng(9)
    for _ in range(20):
        chain, scores = chain_of(rng, 3), rng.normal(size=(5, 3))
        free = Chain(chain.transitions, chain.start, np.zeros(3))  # nothing is known about the end
        tags, sure = chain.online(scores, ends)
        at, previous = None, None
        for t in range(5):
            last = ends and t == 4
            p = (chain if last else free).marginals(scores[: t + 1])[-1]
            at, tag, q = chain.decide(at, previous, scores[t], last=last)
            np.testing.assert_allclose(np.exp(at), free.marginals(scores[: t + 1])[-1], atol=1e-12)
            allowed = (chain.start if previous is None else chain.transitions[previous]) > -np.inf
            assert tag == np.where(allowed, p, -1).argmax() == tags[t]
            assert q == pytest.approx(p[tag], abs=1e-12)
            assert q.hex() == float(sure[t]).hex()
            previous = tag


def test_all_ways_when_there_are_fewer_than_n():
    chain = Chain(np.array([[-np.inf, 0.0], [0.0, -np.inf]]), np.zeros(2), np.zeros(2))
    paths, scores = chain.n_best(np.array([[0.0, 1.0]] * 3), 10)
    assert paths.tolist() == [[1, 0, 1], [0, 1, 0]]
    assert scores.tolist() == [2.0, 1.0]


def test_equals_come_in_the_order_of_their_numbers():
    chain = Chain(np.zeros((3, 3)), np.zeros(3), np.zeros(3))
    assert chain.best(np.zeros((4, 3)))[0].tolist() == [0, 0, 0, 0]
    assert chain.n_best(np.zeros((2, 3)), 3)[0].shape == (3, 2)


def test_long_sentences_neither_overflow_nor_vanish():
    rng = np.random.default_rng(3)
    chain, scores = chain_of(rng, 9), rng.normal(size=(3000, 9)) * 50
    marginals = chain.marginals(scores)
    np.testing.assert_allclose(marginals.sum(1), 1.0, atol=1e-9)
    tags, score = chain.best(scores)
    assert np.isfinite(score)
    assert (marginals[np.arange(3000), tags] > 0.5).mean() > 0.95
    assert chain.n_best(scores, 3)[0][0].tolist() == tags.tolist()


def test_bad_input():
    with pytest.raises(ModelFileError, match=r"a chain has transitions \[K, K\]"):
        Chain(np.zeros((2, 3)), np.zeros(2), np.zeros(2))
    with pytest.raises(ModelFileError, match="must be numbers"):
        Chain(np.full((1, 1), np.nan), np.zeros(1), np.zeros(1))
    chain = Chain(np.zeros((2, 2)), np.zeros(2), np.zeros(2))
    for scores in (np.zeros((0, 2)), np.zeros((3, 1)), np.zeros(2)):
        with pytest.raises(DataError, match=r"scores must be \[T, 2\]"):
            chain.best(scores)
    with pytest.raises(DataError, match="not finite"):
        chain.marginals(np.array([[0.0, np.nan]]))
    with pytest.raises(DataError, match="n must be at least 1, not 0"):
        chain.n_best(np.zeros((1, 2)), 0)

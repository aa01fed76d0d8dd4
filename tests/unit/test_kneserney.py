"""Kneser-Ney: an example by hand, probabilities that sum to 1, and the published perplexity on the Penn Treebank."""

import gzip
import os
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from recurra.errors import DataError
from recurra.kneserney import KneserNey


def slow_probability(ids: list[int], vocabulary: int, order: int, history: list[int], word: int) -> float:
    """The definition, word for word, with one discount of 0.5 for all (texts too short to estimate any)."""

    def counts(n: int) -> Counter:
        grams = Counter(tuple(ids[i : i + n]) for i in range(len(ids) - n + 1))
        if n == order:
            return grams
        longer = {tuple(ids[i : i + n + 1]) for i in range(len(ids) - n)}
        return Counter(gram[1:] for gram in longer)

    p = 1.0 / vocabulary
    for n in range(1, order + 1):
        if n - 1 > len(history):
            break
        context = tuple(history[len(history) - n + 1 :])
        followers = {gram[-1]: c for gram, c in counts(n).items() if gram[:-1] == context}
        total = sum(followers.values())
        if total:
            p = (max(followers.get(word, 0) - 0.5, 0) + 0.5 * len(followers) * p) / total
    return p


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_it_is_the_definition(order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recurra.kneserney._discounts", lambda counts: np.full(3, 0.5))
    rng = np.random.default_rng(0)
    ids, text = rng.integers(0, 5, 40).tolist(), rng.integers(0, 6, 30).tolist()
    found = np.exp(KneserNey(np.array(ids), 6, order).log_probabilities(np.array(text)))
    want = [slow_probability(ids, 6, order, text[max(0, t - order + 1) : t], w) for t, w in enumerate(text)]
    np.testing.assert_allclose(found, want, rtol=1e-6)


def test_a_bigram_by_hand() -> None:
    # "a b a b a c", V = 4: n1 = 1 (a c), n2 = 2 (a b, b a) -> Y = 1/(1 + 4) = 0.2, D1 = 1 - 2 * 0.2 * 2 / 1 = 0.2, D2 = 0.2 (no n3)
    model = KneserNey(np.array([0, 1, 0, 1, 0, 2]), 4, 2)
    # continuation counts: b, a and c each come after one token: n1 = 3, no n2 -> D = 0.5; P(c) = (1 - 0.5) / 3 + 1.5 / 3 * 1 / 4
    lower = 0.5 / 3 + 0.5 / 4
    want = (1 - 0.2) / 3 + (0.2 + 0.2) / 3 * lower  # c after a
    assert np.exp(model.log_probabilities(np.array([0, 2]))[1]) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [1, 2, 7, 300])
def test_the_probabilities_after_any_history_sum_to_one(order: int, length: int) -> None:
    rng = np.random.default_rng(length)
    model = KneserNey(rng.integers(0, 7, length) ** 2 // 6, 9, order)
    for history in ([], [3], [8, 8, 8], rng.integers(0, 9, 6).tolist()):
        last = [model.log_probabilities(np.array([*history, w]))[-1] for w in range(9)]
        assert np.exp(last).sum() == pytest.approx(1, abs=1e-6)


def test_longer_contexts_help_where_the_text_repeats() -> None:
    rng = np.random.default_rng(0)
    text = np.concatenate([rng.permutation(20) for _ in range(3)] * 10)
    nats = [-KneserNey(text, 20, order).log_probabilities(text).mean() for order in (1, 2, 5)]
    assert nats[0] > nats[1] > nats[2]


def test_no_text_and_foreign_ids_are_refused() -> None:
    with pytest.raises(DataError, match="need a text"):
        KneserNey(np.zeros(0, np.int64), 5)
    with pytest.raises(DataError, match="below the vocabulary"):
        KneserNey(np.array([5]), 5)
    with pytest.raises(DataError, match="below the vocabulary"):
        KneserNey(np.array([1]), 5).log_probabilities(np.array([9]))


def test_the_penn_treebank_has_its_published_perplexity() -> None:
    data = Path(os.environ.get("RECURRA_DATA", "")) / "ptb"
    if not data.is_dir():
        pytest.skip("RECURRA_DATA has no ptb/")

    def words(part: str) -> list[str]:
        return gzip.decompress((data / f"ptb.{part}.txt.gz").read_bytes()).decode().replace("\n", " <eos> ").split()

    number: dict[str, int] = defaultdict(lambda: len(number))
    train = np.array([number[word] for word in words("train")])
    test = np.array([number[word] for word in words("test")])
    perplexity = np.exp(-KneserNey(train, len(number)).log_probabilities(test).mean())
    assert 138 < perplexity < 149  # 141.2: Mikolov et al. 2011, by sentences

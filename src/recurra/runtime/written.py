"""The answer of a model that reads a text and writes another: what a search found, as text, words and attention between words."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from recurra.codec.pairs import PairCodec
from recurra.codec.tokenizer import UNKNOWN
from recurra.codec.words import word_index, words
from recurra.search.beam import Hypothesis
from recurra.search.settings import Search


class Alternative(NamedTuple):
    """One of the next best answers; its fields are those of Written."""

    text: str
    score: float
    ended: bool


@dataclass(frozen=True, eq=False)
class Written:
    """An answer. text; score: what the search holds it worth; logp: in nats; ended: whether it came to an end of its own; tokens: as
    the codec writes them; weights [tokens, source tokens]: of attention; source_words: that were read; alternatives: the next best.
    """

    text: str
    score: float
    logp: float
    ended: bool
    tokens: tuple[str, ...]
    weights: np.ndarray = field(repr=False)
    source_words: tuple[str, ...]
    words: tuple[str, ...]
    attention: np.ndarray = field(repr=False)
    """[words, source words]: the weights with pieces put together, each word's mean over its own pieces."""
    alternatives: tuple[Alternative, ...] = ()

    @property
    def alignment(self) -> list[tuple[int, int]]:
        """(source word, word) of each word, from 0: the one it attended to most. Empty where a side has no word."""
        if not self.attention.size:
            return []
        return [(int(s), t) for t, s in enumerate(self.attention.argmax(1))]


def nothing() -> Written:
    """The answer to an empty text."""
    empty = np.zeros((0, 0), np.float32)
    return Written("", 0.0, 0.0, True, (), empty, (), (), empty)


def written(codec: PairCodec, source: str, best: list[Hypothesis], extra: list[str], search: Search) -> Written:
    """What a search found of one source (at least one text), the best first and no two alike; extra: the words that it may copy."""
    texts = [_text(codec, source, one, extra, search) for one in best]
    kept = dict(reversed(list(zip(texts, best, strict=True))))
    order = sorted(kept, key=lambda text: -kept[text].score)[: search.n_best]
    first = kept[order[0]]
    ids = [i for i in first.ids if i != codec.end]
    weights = np.zeros((len(first.ids), 0), np.float32) if first.weights is None else first.weights
    source_ids = next(codec.sources([source]))[:-1]
    said, attention = _by_word(codec, ids, extra, source_ids, weights, order[0])
    return Written(
        order[0],
        first.score,
        first.logp,
        first.ended,
        tuple(codec.token(i, extra) for i in first.ids),
        weights,
        tuple(words(codec.source, source)[: attention.shape[1]]),
        said,
        attention,
        tuple(Alternative(text, kept[text].score, kept[text].ended) for text in order[1:]),
    )


def _by_word(
    codec: PairCodec, ids: list[int], extra: list[str], source_ids: np.ndarray, weights: np.ndarray, text: str
) -> tuple[tuple[str, ...], np.ndarray]:
    """The words of an answer, and attention word by word."""
    of_source = word_index(codec.source, source_ids)
    if extra or codec.target.unit == "words":
        said, of_target = tuple(codec.token(i, extra) for i in ids), np.arange(len(ids))
    else:
        said, of_target = tuple(words(codec.target, text)), word_index(codec.target, ids)
    together = np.zeros((len(said), int(of_source.max(initial=-1)) + 1), np.float32)
    times = np.bincount(of_target, minlength=len(said)).astype(np.float32)
    for row, target in enumerate(of_target.tolist()):
        np.add.at(together[target], of_source, weights[row, : len(of_source)] / times[target])
    return said, together


def _text(codec: PairCodec, source: str, one: Hypothesis, extra: list[str], search: Search) -> str:
    ids = [i for i in one.ids if i != codec.end]
    if search.unknown != "replace" or one.weights is None or UNKNOWN not in ids:
        return codec.decode(ids, extra).strip()
    read = words(codec.source, source)
    of_source = word_index(codec.source, next(codec.sources([source]))[:-1])
    said = [
        read[of_source[one.weights[t, : len(of_source)].argmax()]] if i == UNKNOWN else codec.token(i, extra)
        for t, i in enumerate(ids)
    ]
    return " ".join(said)


def cut(one: Hypothesis, most: int, search: Search) -> Hypothesis:
    """A text of `most` tokens that did not end, without the token that stands where its end had to."""
    if one.ended or len(one.ids) < most:
        return one
    weights = None if one.weights is None else one.weights[:-1]
    logp, covered = one.logp + one.nats[-1], None if weights is None else weights.sum(0, dtype=np.float64)
    score = search.score(logp, max(1, most - 1), covered)
    return replace(one, ids=one.ids[:-1], logp=logp, score=score, nats=one.nats[:-1], weights=weights)

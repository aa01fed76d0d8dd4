"""Beam search: the best texts, as far as `beam` hypotheses of each sentence side by side can tell.

All sentences are searched together: a step continues every open hypothesis of every sentence with one call of the network. One that has
ended leaves, and so does a sentence once `beam` of its own have ended and none that is open is worth more. Nothing of a sentence
depends on its neighbours: every choice is made among its own rows, in double precision, the earlier row and then the lower id first
among equals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import NamedTuple

import numpy as np

from recurra.errors import DataError
from recurra.search.constraints import Progress
from recurra.search.settings import Search

NEVER = -np.inf
Advance = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A text. ids: its tokens, the last that ended it included; nats: -log p of each; logp: of all of them together, in nats; score:
    what it is worth (search/settings.py); ended: it came to an end of its own; weights [T, S]: what attention saw at each token, or None.
    """

    ids: tuple[int, ...]
    logp: float
    ended: bool
    score: float = 0.0
    nats: tuple[float, ...] = ()
    weights: np.ndarray | None = field(default=None, repr=False)


class Words(NamedTuple):
    """The fewest and the most words of a text; begins [V]: whether an id begins one."""

    least: int
    most: int
    begins: np.ndarray


class Task(NamedTuple):
    """One sentence that is searched. most: tokens at most; prefix: ids that the text begins with; phrases: ids that must stand in it;
    first: the same as a text spells them that begins with one, where it spells them otherwise; positions: of its
    source, the others of a row of weights are padding; None: all.
    """

    most: int
    prefix: tuple[int, ...] = ()
    phrases: tuple[tuple[int, ...], ...] = ()
    positions: int | None = None
    words: Words | None = None
    first: tuple[tuple[int, ...], ...] = ()

    @property
    def progress(self) -> Progress:
        """Before the first token."""
        return Progress.of(self.phrases, self.first)


@dataclass(frozen=True)
class _Open:
    """A hypothesis that goes on. row: of the network's last answer; grams: the n-grams that it holds already; words: that
    it has begun.
    """

    sentence: int
    row: int
    text: Hypothesis
    progress: Progress
    seen: tuple[np.ndarray, ...] = ()
    grams: frozenset[tuple[int, ...]] = frozenset()
    words: int = 0


class _Grown(NamedTuple):
    """A hypothesis and one token more; of two, the better is the smaller. nats: -log p of it all; row: of the answer that says so."""

    nats: float
    row: int
    token: int
    parent: _Open


def search(
    advance: Advance,
    tasks: Sequence[Task],
    settings: Search,
    *,
    start: int,
    ends: Callable[[tuple[int, ...]], bool],
    banned: Sequence[int] = (),
    inside: np.ndarray | None = None,
) -> list[list[Hypothesis]]:
    """The best hypotheses of each sentence, the best first, at most `beam`.

    advance(rows, ids): continue the rows of the last call (at first one a sentence), each with its id (at first `start`), and
    give log p of what comes next [n, V], in nats, an array of its own, -inf where it may never come, and attention's weights
    [n, S], or None. ends(ids): whether a text ends with its last token. banned: ids that are never written; inside [V]: whether an
    id goes on with the word before it, which none does right behind a phrase. Where every text of a sentence reaches `most` tokens,
    the best of them are given, not `ended`, and so are those after which nothing is allowed. Raises DataError for phrases that no
    text of `most` tokens has room for, or that the settings forbid.
    """
    return _Search(advance, tasks, settings, start, ends, banned, inside).run()


class _Search:
    def __init__(
        self,
        advance: Advance,
        tasks: Sequence[Task],
        settings: Search,
        start: int,
        ends: Callable[[tuple[int, ...]], bool],
        banned: Sequence[int],
        inside: np.ndarray | None,
    ) -> None:
        for task in tasks:
            needed = len(task.prefix) + reduce(Progress.after, task.prefix, task.progress).left
            if task.most <= needed:
                raise DataError(
                    f"a text of {task.most - 1} tokens at most has no room for the {needed} that are asked for: raise max_length"
                )
        self.advance, self.tasks, self.settings, self.start = advance, tasks, settings, start
        self.ends, self.banned, self.inside = ends, np.asarray(banned, np.int64), inside
        self.done: list[list[Hypothesis]] = [[] for _ in tasks]

    def run(self) -> list[list[Hypothesis]]:
        nothing = Hypothesis((), 0.0, False)
        open_ = [_Open(i, i, nothing, task.progress) for i, task in enumerate(self.tasks)]
        while open_:
            rows = np.array([one.row for one in open_], np.int64)
            ids = np.array([one.text.ids[-1] if one.text.ids else self.start for one in open_], np.int64)
            logp, weights = self.advance(rows, ids)
            open_ = self._step(open_, logp, weights)
        return [sorted(found, key=lambda h: -h.score)[: self.settings.beam] for found in self.done]

    def _step(self, open_: list[_Open], logp: np.ndarray, weights: np.ndarray | None) -> list[_Open]:
        """One token more for all: the hypotheses that go on, each with its row of this answer."""
        logp[:, self.banned] = NEVER
        for row, one in enumerate(open_):
            self._forbid(one, logp[row])
        best = _best(logp, 2 * self.settings.beam)
        going: list[_Open] = []
        first = 0
        while first < len(open_):
            last = first
            while last < len(open_) and open_[last].sentence == open_[first].sentence:
                last += 1
            going += self._sentence(open_[first:last], first, logp, best, weights)
            first = last
        return going

    def _forbid(self, one: _Open, logp: np.ndarray) -> None:
        """Sets to -inf what may not follow."""
        task, n = self.tasks[one.sentence], len(one.text.ids)
        if n < len(task.prefix):
            wanted = task.prefix[n]
            kept = logp[wanted]
            logp[:] = NEVER
            logp[wanted] = kept
            return
        size = self.settings.no_repeat
        if size is not None and n >= size - 1:
            tail = one.text.ids[n - size + 1 :]
            for gram in one.grams:
                if gram[:-1] == tail:
                    logp[gram[-1]] = NEVER
        if self.inside is not None and one.progress.closed:
            logp[: len(self.inside)][self.inside] = NEVER
        if task.words is not None and one.words >= task.words.most:
            logp[: len(task.words.begins)][task.words.begins] = NEVER

    def _sentence(
        self, parents: list[_Open], first: int, logp: np.ndarray, best: list[np.ndarray], weights: np.ndarray | None
    ) -> list[_Open]:
        """What goes on of one sentence, whose rows of this answer begin at `first`; what ends goes to `done`."""
        number, length, beam = parents[0].sentence, len(parents[0].text.ids) + 1, self.settings.beam
        banks = any(parent.progress.open for parent in parents)
        grown = [
            _Grown(-(parent.text.logp + more), row, token, parent)
            for row, parent in enumerate(parents, first)
            for token, more in self._candidates(parent, logp[row], best[row])
        ]
        ended: list[_Grown] = []
        going: list[_Grown] = []
        rivals = 0  # that go on, with every phrase as those have that end
        for one in sorted(grown):
            if not self.ends((*one.parent.text.ids, one.token)):
                going.append(one)
                rivals += not banks or one.parent.progress.after(one.token).done
            elif self._may_end(one, length) and rivals < beam:
                ended.append(one)
            if rivals == beam and not banks:
                break
        if banks:
            going = _shared_out(going, beam)
        if length >= self.tasks[number].most or not going:
            if not self.done[number] and not ended:
                longest = [self._text(one, weights, ended=False) for one in going]
                self.done[number] += longest or self._stuck(parents)
            going = []
        self.done[number] += [self._text(one, weights, ended=True) for one in ended[:beam]]
        if going and self._settled(number, going, length):
            going = []
        return [self._onwards(one, weights) for one in going]

    def _candidates(self, parent: _Open, logp: np.ndarray, best: np.ndarray) -> list[tuple[int, float]]:
        """Tokens that may follow and log p of each: the best, and those of phrases that are still to come, while there is room."""
        progress, task = parent.progress, self.tasks[parent.sentence]
        tokens = best.tolist()
        if progress.open:
            room = task.most - len(parent.text.ids) - 2
            wanted = dict.fromkeys([*tokens, *progress.wanted()])
            tokens = [token for token in wanted if progress.after(token).left <= room]
        return [(token, more) for token, more in zip(tokens, logp[tokens].tolist(), strict=True) if more > NEVER]

    def _may_end(self, one: _Grown, length: int) -> bool:
        task = self.tasks[one.parent.sentence]
        enough = task.words is None or one.parent.words >= task.words.least
        return length > self.settings.min_length and enough and one.parent.progress.done

    def _settled(self, number: int, going: list[_Grown], length: int) -> bool:
        """Whether `beam` texts have ended and none that is open is worth more as it stands."""
        done = sorted((h.score for h in self.done[number]), reverse=True)
        if len(done) < self.settings.beam:
            return False
        return self.settings.score(-going[0].nats, length, None) <= done[self.settings.beam - 1]

    def _text(self, one: _Grown, weights: np.ndarray | None, *, ended: bool) -> Hypothesis:
        before, logp = one.parent.text, -one.nats
        ids, nats = (*before.ids, one.token), (*before.nats, before.logp - logp)
        seen = None if weights is None else np.stack([*one.parent.seen, self._of(one, weights)])
        return Hypothesis(ids, logp, ended, self._worth(logp, len(ids), seen), nats, seen)

    def _worth(self, logp: float, length: int, seen: np.ndarray | None) -> float:
        covered = None if seen is None else seen.sum(0, dtype=np.float64)
        return self.settings.score(logp, length, covered)

    def _stuck(self, parents: list[_Open]) -> list[Hypothesis]:
        """Texts after which nothing is allowed, as they stand."""
        whole = [one for one in parents if one.progress.done]
        if not whole:
            raise DataError(
                "no text holds the phrases that are asked for: ask for fewer, let words repeat, or raise max_length or words"
            )
        found = []
        for one in whole:
            seen = np.stack(one.seen) if one.seen else None
            found.append(
                replace(one.text, score=self._worth(one.text.logp, max(len(one.text.ids), 1), seen), weights=seen)
            )
        return found

    def _of(self, one: _Grown, weights: np.ndarray) -> np.ndarray:
        return weights[one.row, : self.tasks[one.parent.sentence].positions]

    def _onwards(self, one: _Grown, weights: np.ndarray | None) -> _Open:
        parent, size, logp = one.parent, self.settings.no_repeat, -one.nats
        ids, nats = (*parent.text.ids, one.token), (*parent.text.nats, parent.text.logp - logp)
        grams = parent.grams | {ids[-size:]} if size is not None and len(ids) >= size else parent.grams
        seen = parent.seen if weights is None else (*parent.seen, self._of(one, weights))
        progress, asked = parent.progress.after(one.token), self.tasks[parent.sentence].words
        words = 0 if asked is None else parent.words + int(asked.begins[one.token])
        return _Open(parent.sentence, one.row, Hypothesis(ids, logp, False, nats=nats), progress, seen, grams, words)


def _best(logp: np.ndarray, n: int) -> list[np.ndarray]:
    """Ids of each row, the n largest among them: all that are no less than the n-th of the largest of each 32, cheaper to sort."""
    if n >= logp.shape[1]:
        return [np.arange(logp.shape[1])] * len(logp)
    groups = logp.shape[1] // 32
    most = logp if n >= groups else logp[:, : 32 * groups].reshape(len(logp), 32, groups).max(1)
    least = np.partition(most, -n, axis=1)[:, -n, None]
    return [np.flatnonzero(row) for row in logp >= np.maximum(least, np.finfo(logp.dtype).min)]


def _shared_out(going: list[_Grown], beam: int) -> list[_Grown]:
    """The `beam` best, of every bank the best first, the fullest bank before the others."""
    banks: dict[int, list[_Grown]] = {}
    for one in going:
        banks.setdefault(one.parent.progress.after(one.token).bank, []).append(one)
    firsts = [banks[bank].pop(0) for bank in sorted(banks, reverse=True)][:beam]
    rest = sorted(one for bank in banks.values() for one in bank)
    return sorted(firsts + rest[: beam - len(firsts)])

"""Phrases that a text must hold: lexically constrained decoding with a beam shared out among banks (Post and Vilar 2018).

A hypothesis is in bank b when b tokens of its phrases stand in it: those of whole phrases, and those of one that it is in the midst
of. A token that breaks off the phrase takes its tokens back.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a hypothesis stands. open: phrases that are still to come; at: of the first token of the one it is in the midst of, -1: none;
    place: how many of its tokens are there; met: tokens of whole phrases; closed: whether the last token was the last of one; first: the
    open phrases as a text spells them that begins with one, while nothing is written; spelt: the one of these that it is in the midst of.
    """

    open: tuple[tuple[int, ...], ...]
    at: int = -1
    place: int = 0
    met: int = 0
    closed: bool = False
    first: tuple[tuple[int, ...], ...] = ()
    spelt: tuple[int, ...] | None = None

    @classmethod
    def of(cls, phrases: Sequence[Sequence[int]], first: Sequence[Sequence[int]] = ()) -> "Progress":
        """Before the first token. first: how each is spelt there, where it is spelt otherwise."""
        return cls(tuple(map(tuple, phrases)), first=tuple(map(tuple, first)))

    @property
    def bank(self) -> int:
        """Tokens of the phrases that are there."""
        return self.met + (min(self.place, len(self.open[self.at])) if self.at >= 0 else 0)

    @property
    def done(self) -> bool:
        """Whether every phrase is there."""
        return not self.open

    def wanted(self) -> list[int]:
        """The tokens that bring it on."""
        if self.at >= 0:
            return [self._phrase()[self.place]]
        return list(dict.fromkeys(phrase[0] for phrase in (*self.first, *self.open)))

    def after(self, token: int) -> "Progress":
        """Where it stands with one token more."""
        if self.at >= 0 and token == self._phrase()[self.place]:
            return self._on(self.at, self.place + 1, self.spelt)
        for phrases in (self.first, self.open):
            for k, phrase in enumerate(phrases):
                if phrase[0] == token:
                    return self._on(k, 1, phrase if phrases is self.first else None)
        if self.at < 0 and not self.closed and not self.first:
            return self
        return Progress(self.open, met=self.met)

    def _phrase(self) -> tuple[int, ...]:
        return self.open[self.at] if self.spelt is None else self.spelt

    def _on(self, k: int, place: int, spelt: tuple[int, ...] | None) -> "Progress":
        if place < len(self.open[k] if spelt is None else spelt):
            return Progress(self.open, k, place, self.met, spelt=spelt)
        return Progress(self.open[:k] + self.open[k + 1 :], met=self.met + len(self.open[k]), closed=True)

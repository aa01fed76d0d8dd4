"""Phrases that a text must hold: lexically constrained decoding with a beam shared out among banks (Post and Vilar 2018).

A hypothesis is in bank b when b tokens of its phrases stand in it: those of whole phrases, and those of one that it is in the midst
of. A token that breaks off the phrase takes its tokens back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Progress:
    """Where a hypothesis stands. open: phrases that are still to come; at: of the first token of the one it is in the midst of, -1: none;
    place: how many of its tokens are there; met: tokens of whole phrases; closed: whether the last token was the last of one.
    """

    open: tuple[tuple[int, ...], ...]
    at: int = -1
    place: int = 0
    met: int = 0
    closed: bool = False

    @classmethod
    def of(cls, phrases: Sequence[Sequence[int]]) -> "Progress":
        """Before the first token."""
        return cls(tuple(tuple(phrase) for phrase in phrases if len(phrase)))

    @property
    def bank(self) -> int:
        """Tokens of the phrases that are there."""
        return self.met + self.place

    @property
    def done(self) -> bool:
        """Whether every phrase is there."""
        return not self.open

    def wanted(self) -> list[int]:
        """The tokens that bring it on."""
        if self.at >= 0:
            return [self.open[self.at][self.place]]
        return list(dict.fromkeys(phrase[0] for phrase in self.open))

    def after(self, token: int) -> "Progress":
        """Where it stands with one token more."""
        if self.at >= 0 and token == self.open[self.at][self.place]:
            return self._on(self.at, self.place + 1)
        for k, phrase in enumerate(self.open):
            if phrase[0] == token:
                return self._on(k, 1)
        return replace(self, at=-1, place=0, closed=False) if self.at >= 0 or self.closed else self

    def _on(self, k: int, place: int) -> "Progress":
        phrase = self.open[k]
        if place < len(phrase):
            return replace(self, at=k, place=place, closed=False)
        return Progress(self.open[:k] + self.open[k + 1 :], met=self.met + len(phrase), closed=True)

"""Phrases that a text must hold: lexically constrained decoding with a beam shared out among banks (Post and Vilar 2018).

A hypothesis is in bank b when b tokens of its phrases stand in it: those of whole phrases, and those of the one that it is farthest
within. A token that breaks off a phrase takes its tokens back. Phrases may share tokens: "dog park" holds "dog" too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

Phrase = tuple[int, ...]


class Begun(NamedTuple):
    """A phrase that a hypothesis is within: its ids, as they are spelt here, and how many of these are there."""

    phrase: Phrase
    spelt: Phrase
    place: int

    @property
    def gained(self) -> int:
        """Tokens of the phrase that need not come any more."""
        return len(self.phrase) - (len(self.spelt) - self.place)


@dataclass(frozen=True)
class Progress:
    """Where a hypothesis stands. open: phrases that are still to come; begun: those that it is within; met: tokens of whole phrases;
    closed: whether the last token was the last of one; first: the open phrases as a text spells them that begins with one, while
    nothing is written.
    """

    open: tuple[Phrase, ...]
    begun: tuple[Begun, ...] = ()
    met: int = 0
    closed: bool = False
    first: tuple[Phrase, ...] = ()

    @classmethod
    def of(cls, phrases: Sequence[Sequence[int]], first: Sequence[Sequence[int]] = ()) -> "Progress":
        """Before the first token. first: how each is spelt there, where it is spelt otherwise."""
        return cls(tuple(map(tuple, phrases)), first=tuple(map(tuple, first)))

    @property
    def bank(self) -> int:
        """Tokens of the phrases that are there."""
        return self.met + max((min(one.place, len(one.phrase)) for one in self.begun), default=0)

    @property
    def left(self) -> int:
        """Tokens of the phrases that are still to come."""
        return sum(map(len, self.open)) - max((one.gained for one in self.begun), default=0)

    @property
    def done(self) -> bool:
        """Whether every phrase is there."""
        return not self.open

    def wanted(self) -> list[int]:
        """The tokens that bring it on."""
        within = [one.spelt[one.place] for one in self.begun]
        return list(dict.fromkeys(within or [phrase[0] for phrase in (*self.first, *self.open)]))

    def after(self, token: int) -> "Progress":
        """Where it stands with one token more."""
        if not self.open:
            return Progress((), met=self.met) if self.closed else self
        on = [Begun(one.phrase, one.spelt, one.place + 1) for one in self.begun if one.spelt[one.place] == token]
        on += [Begun(a, b, 1) for a, b in zip(self.open, self.first, strict=False) if b[0] == token]
        on += [Begun(phrase, phrase, 1) for phrase in self.open if phrase[0] == token]
        left, met = list(self.open), self.met
        for phrase in dict.fromkeys(one.phrase for one in on if one.place == len(one.spelt)):
            left.remove(phrase)
            met += len(phrase)
        within = dict.fromkeys(one for one in on if one.place < len(one.spelt) and one.phrase in left)
        return Progress(tuple(left), tuple(within), met, closed=met > self.met)

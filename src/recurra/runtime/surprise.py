"""How surprising a text is: a number for each of its tokens, and the usual measures of them all."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from recurra.codec.text import TextCodec
from recurra.kneserney import KneserNey
from recurra.runtime.stream import State

MOST = 700.0  # nats a token beyond which the perplexity is not a float64
FLOORS = {"unigram": 1, "bigram": 2, "Kneser-Ney 5-gram": 5}  # name: order
SHOWN = 12  # tokens of a report


@dataclass(frozen=True)
class Part:
    """A text as tokens. ids [T]; characters: that they stand for; train [N]: tokens of the text that the floors learn from, or None."""

    ids: np.ndarray
    characters: int
    train: np.ndarray | None = None


@dataclass(frozen=True)
class Surprise:
    """-log p of each token after all before it. tokens: as the codec writes them; nats [n]; characters: of the text that they are;
    state: after the text.
    """

    tokens: tuple[str, ...]
    nats: np.ndarray
    characters: int
    state: State = field(repr=False)

    def __iter__(self) -> Iterator[tuple[int, str, float]]:
        """(place, token, nats) of each token; the first has place 0."""
        return zip(range(len(self.tokens)), self.tokens, self.nats.tolist(), strict=True)

    @property
    def total(self) -> float:
        """Of the whole text, in nats."""
        return float(self.nats.sum(dtype=np.float64))

    @property
    def perplexity(self) -> float:
        """exp of the mean over the tokens: among so many equally probable ones the model was in doubt."""
        return measures(self.nats, self.characters)["perplexity"]

    @property
    def nats_per_character(self) -> float:
        """The total over the characters, comparable whatever the tokens are, where no word is unknown."""
        return self.total / self.characters

    @property
    def bits_per_character(self) -> float:
        """The same in bits: what a perfect compressor would need, where no word is unknown."""
        return self.nats_per_character / math.log(2)


def measures(nats: np.ndarray, characters: int) -> dict[str, float]:
    """The metrics of a text: perplexity, nats a token, nats and bits a character."""
    total = float(nats.sum(dtype=np.float64))
    mean = total / len(nats)
    return {
        "perplexity": math.exp(min(mean, MOST)),
        "nats/token": mean,
        "nats/char": total / characters,
        "bits/char": total / characters / math.log(2),
    }


def floors(part: Part, learnt: np.ndarray, opening: int, vocabulary: int) -> dict[str, dict[str, float]]:
    """The same of n-gram models of the tokens `learnt`; both texts begin after the token `opening`."""
    rows = {}
    for name, order in FLOORS.items():
        floor = KneserNey(np.append(opening, learnt), vocabulary, order)
        rows[name] = measures(-floor.log_probabilities(np.append(opening, part.ids))[1:], part.characters)
    return rows


def shares(codec: TextCodec, ids: np.ndarray, nats: np.ndarray) -> dict[str, dict[str, float]]:
    """The tokens with the largest shares of all surprise: how often each came, its nats each time, its share of the whole."""
    times, total = np.bincount(ids, minlength=codec.size), np.bincount(ids, nats, codec.size)
    return {
        repr(codec.token(i)): {
            "times": int(times[i]),
            "nats": float(total[i] / times[i]),
            "share": float(total[i] / total.sum()),
        }
        for i in np.argsort(-total, kind="stable")[:SHOWN].tolist()
        if times[i]
    }

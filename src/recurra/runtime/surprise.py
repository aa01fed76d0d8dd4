"""How surprising a text is: a number for each of its tokens, and the usual measures of them all."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from recurra.runtime.stream import State

MOST = 700.0  # nats a token beyond which the perplexity is not a float64


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
        """The total over the characters, comparable whatever the tokens are."""
        return self.total / self.characters

    @property
    def bits_per_character(self) -> float:
        """The same in bits: what a perfect compressor would need."""
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

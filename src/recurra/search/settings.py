"""What a search for a text is asked to do."""

from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from recurra.config import config
from recurra.errors import RecipeError


@config
class Search:
    """How a text is searched for: `beam` hypotheses of each sentence side by side (1: greedy).

    A hypothesis that has ended is worth  log p / (((5 + n) / 6)^length_penalty n^length_power) + coverage_penalty sum_s log min(c_s, 1)
    with n its tokens, END included, and c_s what attention gave position s of the source in all (Wu et al. 2016).
    """

    beam: int = Field(default=5, ge=1, description="hypotheses side by side; 1: greedy")
    length_penalty: float = Field(
        default=0.6, ge=0, le=10, description="GNMT's: 0 is for the most probable text, more for longer ones"
    )
    length_power: float = Field(
        default=0.0, ge=0, le=10, description="another: the log probability is divided by length**length_power"
    )
    coverage_penalty: float = Field(
        default=0.0, ge=0, le=1000, description="GNMT's: weight of what was never attended to"
    )
    n_best: int = Field(default=1, ge=1, description="texts a sentence, no two alike")
    no_repeat: int | None = Field(
        default=None, ge=1, description="n-grams of so many tokens (not words) may occur once in a text"
    )
    min_length: int = Field(default=0, ge=0, description="tokens at least")
    max_length: int | None = Field(default=None, ge=1, description="tokens at most; none: by max_ratio")
    max_ratio: float = Field(default=2.0, gt=0, description="tokens at most, for each of the source's, and 10 more")
    unknown: Literal["never", "replace", "keep"] = Field(
        default="never",
        description="unknown words: never written, replaced by the word attended to most, or kept as they are",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.n_best > self.beam:
            raise ValueError(f"n_best = {self.n_best} texts need a beam of as many, not {self.beam}")
        if self.max_length is not None and self.max_length < self.min_length:
            raise ValueError(f"max_length = {self.max_length} is below min_length = {self.min_length}")
        return self

    def most(self, source: int) -> int:
        """Tokens at most, END included, for a source of so many."""
        longest = int(self.max_ratio * source) + 10 if self.max_length is None else self.max_length
        return max(longest, self.min_length) + 1

    def score(self, logp: float, length: int, covered: np.ndarray | None) -> float:
        """What a hypothesis of `length` tokens is worth; covered [S]: what attention gave each position, None: unknown."""
        penalty = ((5.0 + length) / 6.0) ** self.length_penalty * float(length) ** self.length_power
        worth = logp / penalty
        if self.coverage_penalty and covered is not None:
            inside = np.minimum(np.maximum(covered.astype(np.float64), 1e-9), 1.0)
            worth += self.coverage_penalty * float(np.log(inside).sum())
        return worth

    def check(self, vocabulary: int) -> None:
        """Raises RecipeError where the beam is wider than the vocabulary."""
        if self.beam >= vocabulary:
            raise RecipeError(f"beam = {self.beam}: must be below the {vocabulary} tokens of the vocabulary")

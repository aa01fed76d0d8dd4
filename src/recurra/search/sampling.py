"""The next token from log probabilities: temperature, top-k, top-p, min-p, repetition penalty; a draw follows from (seed, its number).

In this order, each on what the one before it left:

    repetition   log p of a recent token times the penalty, so p^penalty                     after Keskar et al. 2019
    temperature  p^(1/temperature), scaled to sum to 1
    top_k        the k most probable tokens                                                 Fan et al. 2018
    top_p        the fewest tokens, the most probable first, that hold top_p together       Holtzman et al. 2020
    min_p        those at least min_p times as probable as the most probable                Nguyen et al. 2024

The most probable token always stays. Among equals the lower id comes first.
"""

from typing import Self

import numpy as np
from pydantic import Field, model_validator

from recurra.config import config
from recurra.errors import RecipeError


@config
class Sampling:
    """How the next token is drawn."""

    temperature: float = Field(
        default=1.0, gt=0, description="below 1 likelier tokens are favoured, above 1 rarer ones"
    )
    top_k: int | None = Field(default=None, ge=1, description="draw from the k most probable tokens")
    top_p: float = Field(default=1.0, gt=0, le=1, description="draw from the fewest tokens that hold this probability")
    min_p: float = Field(
        default=0.0, ge=0, lt=1, description="draw from tokens at least this share as probable as the most probable"
    )
    repetition_penalty: float = Field(
        default=1.0,
        ge=1,
        le=1e6,
        description="log probabilities of recent tokens are multiplied by this: 1 does nothing",
    )
    greedy: bool = Field(default=False, description="always take the most probable token")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.greedy and (self.temperature != 1 or self.top_k is not None or self.top_p < 1 or self.min_p > 0):
            raise ValueError("greedy draws nothing: leave out temperature, top_k, top_p and min_p, or greedy")
        return self


def probabilities(logp: np.ndarray, sampling: Sampling, recent: np.ndarray | None = None) -> np.ndarray:
    """logp [V] (nats; -inf = never) and the `recent` tokens' ids -> the probabilities [V] (float64) that are drawn from.

    Raises RecipeError where no token is left to draw: every one has probability 0, or is not a number.
    """
    logp = np.array(logp, np.float64)
    if sampling.repetition_penalty > 1 and recent is not None and len(recent):
        logp[np.unique(recent)] *= sampling.repetition_penalty
    best = int(np.argmax(np.where(np.isnan(logp), -np.inf, logp)))
    if not np.isfinite(logp[best]):
        raise RecipeError("no token is left to draw: every one has probability 0; does the model's loss end in NaN?")
    p = np.zeros(len(logp))
    if sampling.greedy:
        p[best] = 1.0
        return p
    with np.errstate(under="ignore"):
        p = np.exp(np.where(np.isnan(logp), -np.inf, logp - logp[best]) / sampling.temperature)
    p /= p.sum()
    if sampling.top_k is not None or sampling.top_p < 1 or sampling.min_p > 0:
        order = np.argsort(-p, kind="stable")
        falling = p[order]
        keep = len(order) if sampling.top_k is None else min(sampling.top_k, len(order))
        if sampling.top_p < 1:
            held = np.cumsum(falling[:keep])
            keep = min(keep, 1 + int(np.searchsorted(held, sampling.top_p * held[-1])))
        keep = min(keep, int((falling >= sampling.min_p * falling[0]).sum()))
        p[order[keep:]] = 0.0
        p /= p.sum()
    return p


def draw(p: np.ndarray, seed: int, drawn: int) -> int:
    """A token drawn from p [V], as follows from `seed` and the number of tokens `drawn` before: a run that is continued goes on alike."""
    point = np.random.Generator(np.random.Philox(key=seed, counter=drawn)).random()
    edges = np.cumsum(p)
    token = int(np.searchsorted(edges, point * edges[-1], side="right"))
    return min(token, int(np.flatnonzero(p)[-1]))

"""Beam search: the most probable continuation, as far as `width` continuations side by side can tell."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recurra.errors import RecipeError


@dataclass(frozen=True)
class Hypothesis:
    """A continuation. ids: its tokens; logp: of all of them together, in nats; ended: it came to a stop of its own."""

    ids: tuple[int, ...]
    logp: float
    ended: bool


def search(
    logp: np.ndarray,
    advance: Callable[[list[int], list[int]], np.ndarray],
    *,
    width: int,
    tokens: int,
    stop: Callable[[tuple[int, ...]], bool] | None = None,
) -> list[Hypothesis]:
    """The best hypotheses after a state, the most probable first, at most `width`.

    logp [V]: of the first token, in nats; -inf where it may never come. advance(rows, ids): continue the hypotheses `rows` of the last call
    (at first there is one, 0), each with its id, and give log p of what comes next, [len(rows), V]. stop(ids): whether a hypothesis ends
    with its last token. Hypotheses are compared by log p as it is: a longer one is never favoured. Among equals the earlier row, then the
    lower id comes first. Raises RecipeError for a width or a number of tokens below 1.
    """
    if width < 1 or tokens < 1:
        raise RecipeError(f"a beam needs a width and tokens from 1 on, not {width} and {tokens}")
    open_: list[Hypothesis] = [Hypothesis((), 0.0, False)]
    done: list[Hypothesis] = []
    scores = np.asarray(logp, np.float64)[None]
    for place in range(tokens):
        total = scores + np.array([[h.logp] for h in open_])
        best = np.argsort(-total, axis=None, kind="stable")[:width]
        rows, ids = np.unravel_index(best[np.isfinite(total.ravel()[best])], total.shape)
        grown = [
            (row, Hypothesis((*open_[row].ids, token), float(total[row, token]), False))
            for row, token in zip(rows.tolist(), ids.tolist(), strict=True)
        ]
        ended = [h for _, h in grown if stop is not None and stop(h.ids)]
        done += [Hypothesis(h.ids, h.logp, True) for h in ended]
        done = sorted(done, key=lambda h: -h.logp)[:width]
        grown = [(row, h) for row, h in grown if h not in ended]
        if len(done) == width:  # probabilities only fall: what is less probable now can't win
            grown = [(row, h) for row, h in grown if h.logp > done[-1].logp]
        if not grown:
            return done
        open_ = [h for _, h in grown]
        if place + 1 < tokens:
            scores = np.asarray(advance([row for row, _ in grown], [h.ids[-1] for h in open_]), np.float64)
    return sorted(done + open_, key=lambda h: -h.logp)[:width]

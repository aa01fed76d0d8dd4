"""Attention: what of a memory m_1 ... m_S answers a query q, as weights that sum to 1 and the mean of the memory under them.

    weights = softmax over s of score(q, m_s);      context = sum_s weights_s m_s

    dot          q . m                                                                                  Luong et al. 2015
    scaled       q . m / sqrt(M)                                                                        Vaswani et al. 2017
    general      q . W m                                                                                Luong et al. 2015
    additive     v . tanh(W_q q + W_m m + b)                                                            Bahdanau et al. 2015
    normed       g v/|v| . tanh(W_q q + W_m m + b)                                                      as in GNMT, Wu et al. 2016
    location     v . tanh(W_q q + W_m m + b + (F * last weights)_s)                                     Chorowski et al. 2015
    none         1 on the last step, all that an encoder-decoder without attention knows                Sutskever et al. 2014
    heads        scaled, for each head in its own projection of q and m; context = W_o of all heads     Vaswani et al. 2017

`coverage`: what was attended to so far, c = the sum of the weights of all steps before, is seen too. additive and normed add w_c c_s
within the tanh (See et al. 2017), and F of `location` is laid over c (Shen et al. 2018), of which w_c is the middle.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from recurra.errors import DataError, RecipeError

ADDITIVE = ("additive", "normed", "location")
BARE = ("dot", "scaled", "none")  # queries and keys as they are
SCORES = (*BARE, "general", *ADDITIVE, "heads")


class Memory(NamedTuple):
    """What attention reads, computed once a sentence."""

    values: Tensor  # [B, S, M] (heads: A): what the context is a mean of, 0 in the padding
    keys: Tensor  # [B, S, A]: what queries are compared with
    valid: Tensor  # [B, S] truth values: False in the padding


class Attention(nn.Module):
    """Attention of queries of `queries` numbers to a memory of `memory` numbers a step; `size` (default: queries) numbers inside.

    window: steps that `location` sees of the weights before. Parameters, where the score has them: query, key, value and out
    (.weight, .bias), v and b [A], g [1], coverage [A], location.weight [A, 1, window].
    Raises RecipeError for what doesn't go together.
    """

    def __init__(
        self,
        queries: int,
        memory: int,
        *,
        score: str = "normed",
        size: int | None = None,
        heads: int = 1,
        coverage: bool = False,
        window: int = 31,
    ) -> None:
        super().__init__()
        size = size or queries
        _check(queries, memory, score, size, heads, coverage, window)
        self.score, self.heads, self.covers = score, heads, coverage
        self.looks_back = coverage or score == "location"
        self.outputs = size if score == "heads" else memory
        if score == "general":
            self.key = nn.Linear(memory, queries, bias=False)
        elif score == "heads":
            self.query, self.key, self.value = (nn.Linear(width, size) for width in (queries, memory, memory))
            self.out = nn.Linear(size, size)
        elif score in ADDITIVE:
            self.query, self.key = (nn.Linear(width, size, bias=False) for width in (queries, memory))
            self.b = nn.Parameter(torch.zeros(size))
            self.v = nn.Parameter(torch.empty(size).uniform_(-(size**-0.5), size**-0.5))
            if score == "normed":
                self.g = nn.Parameter(torch.full((1,), size**-0.5))
            elif score == "location":
                self.location = nn.Conv1d(1, size, window, padding=window // 2, bias=False)
            if coverage and score != "location":
                self.coverage = nn.Parameter(torch.zeros(size))

    def read(self, memory: Tensor, lengths: Tensor) -> Memory:
        """memory [B, S, M], of which `lengths` [B] steps, each 1 to S, are valid -> what `forward` wants of it; the rest may be NaN.

        Raises DataError where a row has no valid step.
        """
        if len(lengths) and int(lengths.min()) < 1:
            raise DataError("attention needs at least 1 valid step in every row, not 0: leave empty sequences out")
        valid = torch.arange(memory.shape[1], device=memory.device) < lengths.to(memory.device).unsqueeze(1)
        values = torch.where(valid.unsqueeze(2), memory, 0.0)
        keys = values if self.score in BARE else self.key(values)
        if self.score in ADDITIVE:
            keys = keys + self.b
        return Memory(self.value(values) if self.score == "heads" else values, keys, valid)

    def forward(
        self, query: Tensor, memory: Memory, past: Tensor | None = None, there: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """query [B, T, Q] -> context [B, T, outputs], weights [B, T, S] (the mean of the heads'; exactly 0 in the padding), and `past`.

        past [B, S]: what the score sees of the steps before, which goes into the next call; None: there were none. there [T, S]
        truth values: which steps of the memory are there as each query is asked, at least 1 valid one; None: all.
        """
        past = torch.zeros_like(memory.valid, dtype=query.dtype) if past is None else past
        asked = query if self.score in (*BARE, "general") else self.query(query)
        valid = memory.valid.unsqueeze(1)
        if there is not None:
            valid = valid & there
        if self.score == "heads":
            return *self._many(asked, memory, valid), past
        if not self.looks_back:
            weights = self._weights(asked, memory, past, valid)
            return weights @ memory.values, weights, past
        every: list[Tensor] = []
        for t in range(query.shape[1]):
            at = valid[:, t : t + 1] if there is not None else valid
            every.append(self._weights(asked[:, t : t + 1], memory, past, at))
            past = every[-1].squeeze(1) + (past if self.covers else 0.0)
        weights = torch.cat(every, 1)
        return weights @ memory.values, weights, past

    def _weights(self, asked: Tensor, memory: Memory, past: Tensor, valid: Tensor) -> Tensor:
        """[B, T, S] for asked [B, T, A], all of whose steps see the same past."""
        if self.score == "none":
            last = valid & ~nn.functional.pad(valid[..., 1:], (0, 1))
            return last.to(asked.dtype).expand(-1, asked.shape[1], -1)
        if self.score in ADDITIVE:
            scores = (asked.unsqueeze(2) + self._keys(memory, past).unsqueeze(1)).tanh() @ self._direction()
        else:
            scores = asked @ memory.keys.transpose(1, 2)
        if self.score == "scaled":
            scores = scores / math.sqrt(asked.shape[2])
        return scores.masked_fill(~valid, -torch.inf).softmax(2)

    def _keys(self, memory: Memory, past: Tensor) -> Tensor:
        """The keys with what the past adds to them, [B, S, A]."""
        if self.score == "location":
            return memory.keys + self.location(past.unsqueeze(1)).transpose(1, 2)
        return memory.keys + past.unsqueeze(2) * self.coverage if self.covers else memory.keys

    def _direction(self) -> Tensor:
        """What the tanh is multiplied with, [A]."""
        return self.g * self.v / self.v.norm() if self.score == "normed" else self.v

    def _many(self, asked: Tensor, memory: Memory, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Context and mean weights of all heads."""
        q, k, v = (x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in (asked, memory.keys, memory.values))
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
        weights = scores.masked_fill(~valid.unsqueeze(1), -torch.inf).softmax(3)
        return self.out((weights @ v).transpose(1, 2).flatten(2)), weights.mean(1)


def _check(queries: int, memory: int, score: str, size: int, heads: int, coverage: bool, window: int) -> None:
    if score not in SCORES:
        raise RecipeError(f"the scores of attention are {', '.join(SCORES)}, not '{score}'")
    if score in ("dot", "scaled") and queries != memory:
        raise RecipeError(
            f"score '{score}' needs queries as wide as the memory, not {queries} and {memory}: use 'general'"
        )
    if coverage and score not in ADDITIVE:
        raise RecipeError(f"coverage goes with the scores {', '.join(ADDITIVE)}, not with '{score}'")
    if heads < 1 or size % heads or (heads > 1 and score != "heads"):
        raise RecipeError(f"heads = {heads}: score 'heads' takes a number that divides {size}, every other score 1")
    if window < 1 or window % 2 == 0:
        raise RecipeError(f"the window of 'location' must be odd, so that it has a middle, not {window}")

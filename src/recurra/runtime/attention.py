"""Attention played without torch, a sentence at a time: the equations and names are those of nn/attention.py.

A sentence is never padded here, and all sums over it are `layers.Linear`'s, so what a row gets depends on its own sentence alone, bit for
bit: the keys and the values of a sentence are the weights of such a layer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recurra.runtime.layers import Linear, attend, softmax, tanh

ADDITIVE = ("additive", "normed", "location")
COMPILED_SCORES = ("dot", "scaled", "general", "additive", "normed")  # that recurra._core has a kernel for


@dataclass(frozen=True, eq=False)
class Memory:
    """What attention reads of one sentence. values [S, M]: what the context is a mean of; keys [S, A]: what queries are compared with."""

    values: np.ndarray
    keys: np.ndarray
    _packed: dict[tuple[str, int, int], Linear] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.values)

    def first(self, steps: int) -> "Memory":
        """The memory when no more than `steps` of the sentence were there."""
        return self if steps >= len(self) else Memory(self.values[:steps], self.keys[:steps])

    def compared(self, head: slice) -> Linear:
        """Queries [n, A] -> their products with the keys, [n, S]; head: which of the A numbers."""
        return self._map("keys", self.keys[:, head], head)

    def mean(self, head: slice) -> Linear:
        """Weights [n, S] -> the values under them, [n, M]; head: which of the M numbers."""
        return self._map("values", self.values[:, head].T, head)

    def _map(self, what: str, weight: np.ndarray, head: slice) -> Linear:
        place = what, head.start, head.stop
        if place not in self._packed:
            self._packed[place] = Linear(weight, None)
        return self._packed[place]


class Attention:
    """What `weights` ("query.weight", ...) make of queries and a memory. Raises KeyError or ValueError where they don't fit together."""

    def __init__(self, layer: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> None:
        self.score, self.heads, self.covers = layer["score"], int(layer["heads"]), bool(layer["coverage"])
        self._weights = weights

        def linear(name: str) -> Linear | None:
            weight = weights.get(f"{name}.weight")
            return None if weight is None else Linear(weight, weights.get(f"{name}.bias"))

        self._query, self._key, self._value, self._out = map(linear, ("query", "key", "value", "out"))
        if self.score in ADDITIVE:
            self._b = np.asarray(weights["b"], np.float32)
            self._towards = self._direction()
            self._v = Linear(self._towards[None], None)
        if self.score == "location":
            taps = np.asarray(weights["location.weight"], np.float32)[:, 0]
            self._window, self._location = taps.shape[1], Linear(taps, None)
        elif self.covers:
            self._coverage = np.asarray(weights["coverage"], np.float32)

    @property
    def looks_back(self) -> bool:
        """Whether the weights depend on those of the steps before."""
        return self.covers or self.score == "location"

    def _direction(self) -> np.ndarray:
        v = np.asarray(self._weights["v"], np.float32)
        if self.score != "normed":
            return v
        return np.asarray(self._weights["g"] * v / np.sqrt(np.square(v).sum()), np.float32)

    def read(self, states: np.ndarray) -> Memory:
        """The memory of a sentence of states [S, M]."""
        keys = states if self._key is None else self._key(states)
        if self.score in ADDITIVE:
            keys = keys + self._b
        return Memory(states if self._value is None else self._value(states), np.ascontiguousarray(keys))

    def ask(self, query: np.ndarray) -> np.ndarray:
        """Queries [n, Q] as they are compared with the keys, [n, A]."""
        return query if self._query is None else self._query(query)

    def attend_all(
        self, asked: np.ndarray, memories: Sequence[Memory], of: np.ndarray, past: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows asked [n, A], each of the memory of its number in `of` [n], past [n, S] -> context [n, C], weights [n, most S], 0 behind
        a memory's end.
        """
        if self.score in COMPILED_SCORES:
            additive = self.score in ADDITIVE
            found = attend(
                asked,
                [memory.keys for memory in memories],
                [memory.values for memory in memories],
                of,
                v=self._towards if additive else None,
                scale=1 / math.sqrt(asked.shape[1]) if self.score == "scaled" else 1.0,
                past=past,
                cover=self._coverage if additive and self.covers else None,
            )
            if found is not None:
                return found
        weights = np.zeros((len(asked), max(map(len, memories))), np.float32)
        contexts: dict[int, np.ndarray] = {}
        for k, memory in enumerate(memories):
            here = np.flatnonzero(of == k)
            some, weights[here, : len(memory)] = self.attend(asked[here], memory, past[here, : len(memory)])
            contexts |= dict(zip(here.tolist(), some, strict=True))
        return np.stack([contexts[row] for row in range(len(asked))]), weights

    def attend(self, asked: np.ndarray, memory: Memory, past: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of one sentence: asked [n, A] and what they saw of the steps before, past [n, S] -> context [n, C], weights [n, S]."""
        if self.score == "heads":
            return self._many(asked, memory)
        if self.score == "none":
            weights = np.zeros((len(asked), len(memory)), np.float32)
            weights[:, -1] = 1
            return np.repeat(memory.values[-1:], len(asked), 0), weights
        whole = slice(None)
        if self.score in ADDITIVE:
            keys = np.broadcast_to(memory.keys, (len(asked), *memory.keys.shape))
            scores = self._v(tanh(asked[:, None] + keys + self._of_past(past)))[..., 0]
        else:
            scores = memory.compared(whole)(asked)
        if self.score == "scaled":
            scores = scores / np.float32(math.sqrt(asked.shape[1]))
        weights = softmax(scores)
        return memory.mean(whole)(weights), weights

    def _of_past(self, past: np.ndarray) -> np.ndarray:
        """What the past adds to the keys, [n, S, A], or 0."""
        if self.score == "location":
            half = self._window // 2
            wide = np.pad(past, ((0, 0), (half, half)))
            return self._location(np.lib.stride_tricks.sliding_window_view(wide, self._window, 1))
        return past[:, :, None] * self._coverage if self.covers else np.zeros(1, np.float32)

    def _many(self, asked: np.ndarray, memory: Memory) -> tuple[np.ndarray, np.ndarray]:
        """Context and mean weights of all heads."""
        assert self._out is not None
        size = asked.shape[1] // self.heads
        contexts, total = [], np.zeros((len(asked), len(memory)), np.float32)
        for k in range(self.heads):
            head = slice(k * size, (k + 1) * size)
            scores = memory.compared(head)(asked[:, head]) / np.float32(math.sqrt(size))
            weights = softmax(scores)
            contexts.append(memory.mean(head)(weights))
            total = total + weights
        return self._out(np.concatenate(contexts, 1)), total / np.float32(self.heads)

"""Play nn/lookback.py: every state attends to the newest ones of its stream, its own among them, however they came in."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from recurra.runtime.attention import Attention, Memory


class LookBack:
    """What `weights` make of the newest `window` states. Raises KeyError or ValueError where they don't fit together."""

    def __init__(self, layer: Mapping[str, Any], weights: Mapping[str, np.ndarray], hidden: int) -> None:
        self._attention, self._window, self._hidden = Attention(layer, weights), int(layer["window"]), hidden
        shape = weights["key.weight"].shape
        if layer["score"] != "general" or shape != (hidden, hidden) or self._window < 2:
            raise ValueError(
                f"key.weight must be {(hidden, hidden)} and the window at least 2, not {shape} and {self._window}"
            )

    def start(self, rows: int) -> dict[str, np.ndarray]:
        """What is kept of `rows` streams of which nothing has been seen: the newest states, newest last, and how many there are."""
        return {
            "states": np.zeros((rows, self._window - 1, self._hidden), np.float32),
            "count": np.zeros(rows, np.int64),
        }

    def __call__(self, kept: Mapping[str, np.ndarray], states: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """states [N, T, H], `lengths` [N] of them valid -> their contexts [N, T, H], 0 behind the end; `kept` changes in place."""
        contexts = np.zeros_like(states)
        for row, steps in enumerate(lengths.tolist()):
            if steps:
                before = int(kept["count"][row])
                whole = np.concatenate([kept["states"][row, self._window - 1 - before :], states[row, :steps]])
                contexts[row, :steps] = self._contexts(whole, steps)
                newest = whole[1 - self._window :]
                kept["states"][row, self._window - 1 - len(newest) :], kept["count"][row] = newest, len(newest)
        return contexts

    def _contexts(self, whole: np.ndarray, steps: int) -> np.ndarray:
        """Contexts of the last `steps` states of one stream."""
        memory, asked = self._attention.read(whole), self._attention.ask(whole[-steps:])
        ends = range(len(whole) - steps + 1, len(whole) + 1)
        seen = [slice(max(0, end - self._window), end) for end in ends]
        memories = [Memory(memory.values[some], memory.keys[some]) for some in seen]
        nothing = np.zeros((steps, min(self._window, len(whole))), np.float32)
        return self._attention.attend_all(asked, memories, np.arange(steps), nothing)[0]

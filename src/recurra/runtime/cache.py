"""The continuous cache (Grave, Joulin and Usunier 2017): tokens that followed a like state lately are likelier to come again.

    p_cache(w) ~ sum over the last `size` places i of exp(theta h . h_i) [w is the token that came after h_i]
    p(w)       = (1 - weight) p_model(w) + weight p_cache(w)

h is what the output layer reads. It needs no training, and its memory is part of the state.
"""

import numpy as np
from pydantic import Field

from recurra.config import config


@config
class Cache:
    """A memory of the latest tokens beside the network's own."""

    size: int = Field(ge=1, le=100_000, description="tokens remembered")
    theta: float = Field(default=0.3, ge=0, description="how much like the present state a remembered one must be")
    weight: float = Field(default=0.1, gt=0, lt=1, description="share of the cache in every probability")

    def start(self, rows: int, width: int) -> dict[str, np.ndarray]:
        """Nothing remembered: cache.h [rows, size, width], cache.token [rows, size] (-1: none), cache.count [rows]."""
        return {
            "cache.h": np.zeros((rows, self.size, width), np.float32),
            "cache.token": np.full((rows, self.size), -1, np.int32),
            "cache.count": np.zeros(rows, np.int64),
        }

    def put(self, arrays: dict[str, np.ndarray], h: np.ndarray, tokens: np.ndarray) -> None:
        """Remember, in place, that tokens [rows] came after h [rows, width]; the oldest is forgotten."""
        rows = np.arange(len(tokens))
        at = arrays["cache.count"] % self.size
        arrays["cache.h"][rows, at] = h
        arrays["cache.token"][rows, at] = tokens
        arrays["cache.count"] += 1

    def mix(self, arrays: dict[str, np.ndarray], h: np.ndarray, logp: np.ndarray) -> np.ndarray:
        """logp [rows, V] of the model at h [rows, width] -> log p with the cache, float32; a row without memory keeps the model's."""
        mixed = logp.copy()
        for row in range(len(h)):
            held = min(int(arrays["cache.count"][row]), self.size)
            if held:
                mixed[row] = self._mix(
                    arrays["cache.h"][row, :held], arrays["cache.token"][row, :held], h[row], logp[row]
                )
        return mixed

    def _mix(self, keys: np.ndarray, tokens: np.ndarray, h: np.ndarray, logp: np.ndarray) -> np.ndarray:
        likeness = self.theta * (keys * h).sum(
            axis=-1, dtype=np.float64
        )  # no matrix product: its bits would depend on the size
        share = np.exp(likeness - likeness.max())
        share *= self.weight / share.sum()
        p = (1.0 - self.weight) * np.exp(logp.astype(np.float64))
        np.add.at(p, tokens, share)
        with np.errstate(divide="ignore"):
            return np.log(p).astype(np.float32)

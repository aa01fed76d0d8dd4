"""Dynamic evaluation (Krause et al. 2018): go on learning from a text while it is read, each token after it was predicted.

    a segment:    nats_t = -log softmax(W h_t + b)[token_t],     W, b -= rate * gradient of their mean
    after it:     W, b += decay * (what was trained - W, b)

Here the output layer alone learns, by plain gradient descent, so that it needs no torch; the recurrent layers stay as they were
trained. What is learnt lasts for one text, and how it is cut into segments changes the last bits.
"""

import numpy as np
from pydantic import Field

from recurra.config import config
from recurra.errors import UnsupportedError
from recurra.runtime.language import AdaptiveSoftmax, Softmax, log_softmax


@config
class Dynamic:
    """How the output layer learns from the text that is scored."""

    rate: float = Field(default=0.1, gt=0, le=10, description="learning rate")
    decay: float = Field(default=0.0, ge=0, lt=1, description="share of the way back to the trained weights, a segment")
    segment: int = Field(default=20, ge=1, description="tokens between two updates")


class Learner:
    """An output layer that learns. Raises UnsupportedError for an adaptive softmax."""

    def __init__(self, softmax: Softmax | AdaptiveSoftmax, dynamic: Dynamic) -> None:
        if not isinstance(softmax, Softmax):
            raise UnsupportedError("dynamic evaluation needs a full softmax, and this model's is adaptive (cutoffs)")
        self._dynamic, self._trained = dynamic, (softmax.weight, softmax.bias)
        self._weight, self._bias = softmax.weight.copy(), softmax.bias.copy()

    def __call__(self, h: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """h [T, width] and the tokens [T] that came -> log p of every token [T, V], each before it was learnt from."""
        parts = [
            self._segment(h[i : i + self._dynamic.segment], targets[i : i + self._dynamic.segment])
            for i in range(0, len(h), self._dynamic.segment)
        ]
        return np.concatenate(parts)

    def _segment(self, h: np.ndarray, targets: np.ndarray) -> np.ndarray:
        logp = log_softmax(h @ self._weight.T + self._bias)
        gradient = np.exp(logp)
        gradient[np.arange(len(targets)), targets] -= 1.0
        gradient *= self._dynamic.rate / len(targets)
        self._weight -= gradient.T @ h
        self._bias -= gradient.sum(axis=0)
        if self._dynamic.decay:
            self._weight += self._dynamic.decay * (self._trained[0] - self._weight)
            self._bias += self._dynamic.decay * (self._trained[1] - self._bias)
        return logp

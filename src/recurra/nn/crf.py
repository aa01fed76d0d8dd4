"""A linear-chain conditional random field over the scores of a network (Lafferty et al., 2001; Lample et al., 2016).

score(y) = start_{y_1} + sum_t scores_{t, y_t} + sum_t transitions_{y_t, y_{t+1}} + end_{y_T}
-log p(y) = log sum_{y'} e^{score(y')} - score(y)                            the sum by the forward algorithm, in log space
"""

import numpy as np
import torch
from torch import Tensor, nn

FORBIDDEN = -1e4  # what a forbidden tag or transition scores: e^-10000 is 0, and no float32 sum overflows

LEAST = 1e-304  # e^-700, well above float64's smallest


class CRF(nn.Module):
    """Transitions of K tags. `transitions` [K, K] (from the row's tag to the column's), `start` and `end` [K]: truth values, what is
    allowed; what is not is never trained and scores -1e4.
    """

    def __init__(self, transitions: np.ndarray, start: np.ndarray, end: np.ndarray) -> None:
        super().__init__()
        for name, allowed in (("transitions", transitions), ("start", start), ("end", end)):
            mask = torch.as_tensor(np.asarray(allowed, bool))
            self.register_parameter(name, nn.Parameter(torch.zeros(mask.shape)))
            self.register_buffer(f"{name}_allowed", mask, persistent=False)

    def weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """transitions [K, K], start and end [K], with what is forbidden at -1e4."""
        names = ("transitions", "start", "end")
        found = [getattr(self, name).masked_fill(~getattr(self, f"{name}_allowed"), FORBIDDEN) for name in names]
        return found[0], found[1], found[2]

    def forward(self, scores: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """scores [B, T, K], tags [B, T] (int64), lengths [B], each 1 to T -> -log p(tags) [B]. What lies behind a length is not read."""
        steps = torch.arange(scores.shape[1], device=scores.device)
        valid = steps < lengths.unsqueeze(1)
        scores = torch.where(valid.unsqueeze(-1), scores, 0.0)
        tags = torch.where(valid, tags, 0)
        return self._all(scores, valid, lengths) - self._one(scores, tags, valid, lengths)

    def _one(self, scores: Tensor, tags: Tensor, valid: Tensor, lengths: Tensor) -> Tensor:
        """The score of the given tags, [B]."""
        transitions, start, end = self.weights()
        each = scores.gather(2, tags.unsqueeze(2)).squeeze(2)
        pairs = transitions[tags[:, :-1], tags[:, 1:]]
        last = tags.gather(1, (lengths - 1).unsqueeze(1)).squeeze(1)
        return (each * valid).sum(1) + (pairs * valid[:, 1:]).sum(1) + start[tags[:, 0]] + end[last]

    def _all(self, scores: Tensor, valid: Tensor, lengths: Tensor) -> Tensor:
        """log sum e^score over all sequences of tags, [B].

        A step is a matrix product of e^x in float64, each row less its largest: far cheaper than K x K logarithms of float32. What is
        e^-700 of the largest is lost, and counts as that much.
        """
        transitions, start, end = (part.double() for part in self.weights())
        steps = scores.double().unbind(1)
        at, go = start + steps[0], transitions.exp()
        for t in range(1, len(steps)):
            top = at.detach().amax(1, keepdim=True)
            new = ((at - top).exp() @ go).clamp(min=LEAST).log() + top + steps[t]
            at = torch.where(valid[:, t].unsqueeze(1), new, at)
        return torch.logsumexp(at + end, 1).to(scores.dtype)

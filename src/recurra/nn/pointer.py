"""The pointer-generator: a word is written from the vocabulary or copied from the source (See et al. 2017).

    p     = sigmoid(w . [context; h; e] + b)
    P(w)  = p P_vocabulary(w) + (1 - p) sum of the attention weights where the source has w
    coverage loss = sum over t and s of min(weights_ts, sum of weights_rs over r < t)

Ids from `vocabulary` on are words of that source alone, in the order of their first appearance in it. All in log space and never NaN:
log p and log (1 - p) are finite for any finite sum, and what no weight falls on has the smallest normal number, not 0.
"""

import torch
from torch import Tensor, nn

from recurra.nn.decoder import Decoded


class Pointer(nn.Linear):
    """The gate p. Parameters: weight [1, C + H + E], bias [1]."""

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, 1)

    def gate(self, decoded: Decoded) -> Tensor:
        """p before its sigmoid, [..., 1]."""
        return self(torch.cat([decoded.context, decoded.top, decoded.embedded], -1))

    def log_probability(self, decoded: Decoded, log_vocabulary: Tensor, source: Tensor, targets: Tensor) -> Tensor:
        """log P of `targets` [...], for log P_vocabulary [..., V], and source [..., S], the ids under decoded.weights [..., S]."""
        vocabulary = log_vocabulary.shape[-1]
        targets = targets.unsqueeze(-1)
        written = log_vocabulary.gather(-1, targets.clamp(max=vocabulary - 1))
        written = written.masked_fill(targets >= vocabulary, -torch.inf)
        copied = torch.where(source == targets, decoded.weights, 0.0).sum(-1, keepdim=True)
        return _mixture(self.gate(decoded), written, copied).squeeze(-1)

    def log_probabilities(self, decoded: Decoded, log_vocabulary: Tensor, source: Tensor) -> Tensor:
        """log P of every id, [..., N], N being V or what the largest id of all sources asks for; the rest as in `log_probability`."""
        vocabulary = log_vocabulary.shape[-1]
        extra = max(0, int(source.max()) + 1 - vocabulary)
        written = nn.functional.pad(log_vocabulary, (0, extra), value=-torch.inf)
        source = source.expand_as(decoded.weights)
        copied = torch.zeros_like(written).scatter_add(-1, source, decoded.weights.to(written.dtype))
        return _mixture(self.gate(decoded), written, copied)


def _mixture(gate: Tensor, written: Tensor, copied: Tensor) -> Tensor:
    """log (p e^written + (1 - p) copied), for the gate [..., 1]."""
    gate, copied = gate.to(written.dtype), copied.to(written.dtype)
    least = torch.finfo(copied.dtype).tiny
    log_copied = nn.functional.logsigmoid(-gate) + copied.clamp(min=least).log()
    return torch.logaddexp(nn.functional.logsigmoid(gate) + written, log_copied)


def coverage_loss(weights: Tensor, lengths: Tensor) -> Tensor:
    """sum over t < lengths and s of min(weights_ts, what s got before t), for weights [B, T, S] and `lengths` [B]: a number."""
    before = nn.functional.pad(weights.cumsum(1)[:, :-1], (0, 0, 1, 0))
    valid = torch.arange(weights.shape[1], device=weights.device) < lengths.unsqueeze(1)
    return torch.where(valid.unsqueeze(2), torch.minimum(weights, before), 0.0).sum()

"""Cross entropy with label smoothing, in as few passes over the scores as it takes: a vocabulary's scores are most of a decoder's memory.

loss = log sum_k e^{x_k} - (1 - smoothing) x_y - smoothing mean_k x_k          Szegedy et al. 2016
"""

from typing import Any

import torch
from torch import Tensor


class _SmoothedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        most = x.amax(1, keepdim=True)
        powers = (x - most).exp_()
        total = powers.sum(1, keepdim=True)
        chosen = x.gather(1, targets.unsqueeze(1))
        ctx.save_for_backward(powers, total, targets)
        ctx.smoothing = smoothing
        loss = most + total.log() - (1.0 - smoothing) * chosen
        return (loss - smoothing * x.mean(1, keepdim=True) if smoothing else loss).squeeze(1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        powers, total, targets = ctx.saved_tensors
        grad = grads[0].unsqueeze(1)
        x = powers * (grad / total)
        if ctx.smoothing:
            x -= ctx.smoothing / x.shape[1] * grad
        x.scatter_add_(1, targets.unsqueeze(1), -(1.0 - ctx.smoothing) * grad)
        return x, None, None


def smoothed_cross_entropy(x: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Scores x [N, V] and the ids wanted, targets [N] (int64) -> the loss of each, [N], in nats. smoothing: the share, from 0 to below 1,
    of the loss that asks for every id alike.
    """
    return _SmoothedCrossEntropy.apply(x, targets, smoothing)  # type: ignore[no-any-return]

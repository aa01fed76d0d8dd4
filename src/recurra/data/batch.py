"""The one type that tasks eat."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B sequences side by side, T steps of each.

    values [B, T, F]; lengths [B] (int64): valid steps; targets: what the task learns, per step [B, T, ...] (NaN =
    unknown); weights [B, T, ...]: what each target counts (0 = not at all), broadcast against targets; context
    [B, T, C]: what the head reads beside the recurrent state; units [B, T, U]: numbers that the loss needs to know what
    a target is worth; fresh: the state starts from nothing (False: these steps go on where the last batch stopped).
    """

    values: Tensor
    lengths: Tensor
    targets: Tensor
    weights: Tensor
    context: Tensor
    units: Tensor
    fresh: bool

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "fresh"}
        return replace(self, **moved)

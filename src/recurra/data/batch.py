"""The one type that tasks eat, and where it comes from."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.utils.data import IterableDataset


@dataclass(frozen=True)
class Batch:
    """B sequences side by side, T steps of each.

    values: numbers [B, T, F], or tokens [B, T] (int64; 0 in the padding); lengths [B] (int64): valid steps; targets: what
    the task learns, per step [B, T, ...] or per sequence [B] or [B, K] (numbers: NaN = unknown); weights: what each target
    counts (0 = not at all), broadcast against targets; fresh: the state starts from nothing (False: these steps go on where
    the last batch stopped); context [B, T, C]: what the head reads beside the recurrent state; units [B, T, U]: numbers that
    the loss needs to know what a target is worth; characters [B, T, C] (int64): the letters of each word; copies [B, T]
    (int64): what a pointer writes that copies a token (codec/pairs.py; targets of pairs have a length T of their own); scale: of the
    learning rate, in the step on this batch.
    """

    values: Tensor
    lengths: Tensor
    targets: Tensor
    weights: Tensor
    fresh: bool = True
    context: Tensor | None = None
    units: Tensor | None = None
    characters: Tensor | None = None
    copies: Tensor | None = None
    scale: float = 1.0

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in parts.items() if isinstance(v, Tensor)})


class Batches(IterableDataset[Batch], ABC):
    """The batches of one part of the data, epoch after epoch. Whoever trains sets `epoch` before each pass."""

    epoch: int = 0

    @abstractmethod
    def steps(self, epoch: int) -> int:
        """Batches of an epoch."""

    @abstractmethod
    def __iter__(self) -> Iterator[Batch]:
        """The batches of the epoch `self.epoch`."""

    def __len__(self) -> int:
        return self.steps(self.epoch)


def rank() -> tuple[int, int]:
    """This process among those that train together, and their number."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1

"""The contract between a task and those who train, save and serve it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from recurra.config import config
from recurra.data.batch import Batch

OWN: Any = None  # a default that each task fills with its own (training/recipe.py, DEFAULTS)
CoreState = Any  # what recurra.nn's layers carry: a tensor, or (h, c)


@config
class Core:
    """The recurrent network, the same for every task. None: the task's own value (training/recipe.py, DEFAULTS)."""

    cell: Literal["lstm", "gru", "rnn"] = Field(default="lstm", description="equations of one step")
    hidden: int = Field(default=OWN, ge=1, le=65_536, description="units a layer")
    layers: int = Field(default=OWN, ge=1, description="layers, one upon the other")
    dropout: float = Field(
        default=OWN, ge=0, lt=1, description="share of values dropped between layers and in the head, in training"
    )


@dataclass(frozen=True)
class Export:
    """What the runtime needs to play a model: `layers`, in order, each {"kind": ..., "name": ...}, and their weights."""

    layers: list[dict[str, Any]]
    weights: dict[str, np.ndarray] = field(repr=False)


class Task(nn.Module, ABC):
    """A model of one job. It never builds an optimiser and never reads data."""

    name: ClassVar[str]

    @abstractmethod
    def forward(self, batch: Batch, state: CoreState | None = None) -> tuple[Any, CoreState]:
        """The head's output for `batch`, and the state after it. `state` None: from nothing."""

    @abstractmethod
    def loss(self, output: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum, count) over all valid targets; whoever trains divides, once."""

    def error(self, output: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum, count) of what decides which epoch is kept: the loss, or nearer to what is wanted, e.g. wrong answers. The sum is one
        number, or as many as `errors` says, [errors].
        """
        return self.loss(output, batch)

    @property
    def errors(self) -> int:
        """Numbers of the sum of `error`."""
        return 1

    def overall(self, total: Sequence[float], count: float) -> float:
        """What the sums over the whole validation part come to: the less, the better."""
        return total[0] / max(count, 1.0)

    def groups(self) -> list[tuple[Iterable[nn.Parameter], float]]:
        """The parameters, each group with the factor of its learning rate (discriminative rates: Howard & Ruder, 2018)."""
        return [(self.parameters(), 1.0)]

    def begin(self, epoch: int) -> None:
        """Called before each epoch, e.g. to thaw a layer."""

    def heard(self, loss: float) -> str | None:
        """Called after each epoch with its loss on the validation part (in training, where there is none). Returns what begins with
        the next epoch, in a word, where something does.
        """

    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Called once training is done, with the validation part, where there is one: e.g. to fit a temperature."""

    @abstractmethod
    def export(self) -> Export:
        """The layers and weights for the runtime. Raises UnsupportedError naming what it can't play."""


def detach(state: CoreState) -> CoreState:
    """The same state without its history: where truncated backpropagation through time cuts."""
    return tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()


def arrays(module: nn.Module, prefix: str) -> dict[str, np.ndarray]:
    """A module's parameters as float32 arrays, each name behind `prefix`."""
    return {f"{prefix}.{k}": v.detach().cpu().float().numpy().copy() for k, v in module.named_parameters()}

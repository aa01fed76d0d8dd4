"""Summarise: a document becomes a few words. The network is nn/sequence.py's, with a pointer that copies words of the document and a
coverage that keeps it from saying things twice: the pointer-generator of See, Liu and Manning (2017).

    loss   = -log P(y_t)  + cover sum_s min(weights_ts, weights of all steps before)

The second part begins by itself once the first has flattened: in the first epoch after one that made it less than `FLAT` smaller. The
epoch that is kept is chosen by both parts, in every epoch.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from recurra.config import config
from recurra.data.batch import Batch
from recurra.nn.decoder import Decoded
from recurra.nn.sequence import EncoderDecoder
from recurra.tasks.task import Core, CoreState, Export, Task

FLAT = 0.02  # share of the loss


@config
class Summarise:
    """Learn to say a document in a few words."""

    embedding: int = Field(default=128, ge=1, description="numbers that stand for a token")
    attention: Literal["normed", "additive", "location"] = Field(
        default="additive", description="how a query is compared with the document"
    )
    shape: Literal["gnmt", "feeding"] = Field(
        default="gnmt", description="where the context goes: to the layers above the first, or back into the first"
    )
    pointer: bool = Field(default=True, description="copy words of the document, unknown ones too")
    coverage: bool = Field(default=True, description="attention sees what it attended to before")
    cover: float = Field(default=1.0, ge=0, description="weight of the coverage loss, once it has begun; 0: never")
    tied: bool = Field(default=True, description="one matrix for the tokens' vectors and the output layer")
    smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="share of the loss that asks for every token alike, in training"
    )
    sampling: float = Field(
        default=0.0, ge=0, lt=1, description="how often the model reads its own token in training, not the given one"
    )
    weight_drop: float = Field(default=0.0, ge=0, lt=1, description="share of the recurrent weights dropped")


class Summariser(Task):
    """The network of `Summarise`, over `vocabulary` ids."""

    name: ClassVar[str] = "summarise"

    def __init__(self, config: Summarise, core: Core, vocabulary: int) -> None:
        super().__init__()
        self.config = config
        self.network = EncoderDecoder(
            vocabulary,
            config.embedding,
            core.hidden,
            core.layers,
            cell=core.cell,
            shape=config.shape,
            score=config.attention,
            coverage=config.coverage,
            tied=config.tied,
            pointer=config.pointer,
            dropout=core.dropout,
            weight_drop=config.weight_drop,
            smoothing=config.smoothing,
        )
        self.covering: Tensor
        self.least: Tensor
        self.register_buffer("covering", torch.tensor(False))
        self.register_buffer("least", torch.tensor(torch.inf))

    def forward(self, batch: Batch, state: CoreState | None = None) -> tuple[Decoded, CoreState]:
        """What the decoder makes of the targets before each, and no state: a document never goes on in another batch."""
        inputs = self.network.inputs(batch.targets)
        return self.network(self._source(batch), batch.lengths, inputs, self.config.sampling), ()

    def _source(self, batch: Batch) -> Tensor:
        """The document's ids: with a pointer those of the extended vocabulary."""
        return batch.values if batch.copies is None else batch.copies

    def loss(self, output: Decoded, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum, count) of -log P of the targets, in nats; in training with smoothing, and with coverage once it has begun."""
        return self._loss(output, batch, covering=self.training and bool(self.covering))

    def error(self, output: Decoded, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum, count) of both parts of the loss, whether coverage has begun or not."""
        return self._loss(output, batch, covering=True)

    def _loss(self, output: Decoded, batch: Batch, *, covering: bool) -> tuple[Tensor, Tensor]:
        cover = self.config.cover if self.config.coverage and covering else 0.0
        return self.network.loss(output, self._source(batch), batch.targets, batch.weights.sum(1).long(), cover)

    def heard(self, loss: float) -> str | None:
        """Coverage begins where the loss of an epoch is hardly below the least before."""
        flat = loss > (1.0 - FLAT) * float(self.least)
        self.least.fill_(min(loss, float(self.least)))
        if not flat or self.covering or not self.config.coverage or not self.config.cover:
            return None
        self.covering.fill_(True)
        return "coverage"

    def export(self) -> Export:
        """The layers as the runtime plays them (runtime/sequence.py)."""
        return Export(*self.network.export())

"""Translate: a sentence becomes another. The network is nn/sequence.py's: an encoder, and a decoder that attends to it.

loss   = -log p(y_t | y_1 ... y_{t-1}, source)                smoothed (Szegedy et al. 2016)
GLEU   = n-grams (1 to 4) that both have / the more of the two    of what is written greedily    Wu et al. 2016
"""

from collections import Counter
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from recurra.config import config
from recurra.data.batch import Batch
from recurra.nn.decoder import Decoded
from recurra.nn.sequence import EncoderDecoder
from recurra.tasks.task import Core, CoreState, Export, Task

LONGEST = 2  # times the longest target of a batch, where greedy decoding gives up
GRAMS = 4


@config
class Translate:
    """Learn to translate from sentences and their translations."""

    embedding: int = Field(default=256, ge=1, description="numbers that stand for a token")
    attention: Literal["normed", "additive", "dot", "scaled", "general", "location", "heads", "none"] = Field(
        default="normed", description="how a query is compared with the source; none: the last state alone is known"
    )
    heads: int = Field(default=1, ge=1, description="attention heads side by side, for attention = heads")
    shape: Literal["gnmt", "feeding"] = Field(
        default="gnmt",
        description="gnmt: the context goes to the layers above the first, so that training runs layer by layer; feeding: "
        "what was attended to is fed back, step by step",
    )
    direction: Literal["first", "both", "forward"] = Field(
        default="first", description="what reads both ways: the encoder's first layer, every layer, or none"
    )
    bridge: Literal["last", "zeros"] = Field(
        default="last", description="where the decoder starts: from the encoder's last state, or from nothing"
    )
    tied: bool = Field(default=True, description="one matrix for the target's vectors and the output layer")
    smoothing: float = Field(
        default=0.1, ge=0, lt=1, description="share of the loss that asks for every token alike, in training"
    )
    sampling: float = Field(
        default=0.0, ge=0, lt=1, description="how often the model reads its own token in training, not the given one"
    )
    weight_drop: float = Field(default=0.0, ge=0, lt=1, description="share of the recurrent weights dropped")
    wait: int | None = Field(
        default=None,
        ge=1,
        description="tokens of the source that are read before the first is written, then one by one",
    )
    watch: Literal["loss", "gleu"] = Field(
        default="loss",
        description="what decides which epoch is kept: the loss, or the GLEU of what is written greedily",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.wait is not None and (self.direction != "forward" or self.bridge != "zeros"):
            raise ValueError('wait writes before the source ends: set direction = "forward" and bridge = "zeros"')
        if self.heads > 1 and self.attention != "heads":
            raise ValueError(f'heads = {self.heads} needs attention = "heads"')
        if self.attention == "none" and self.bridge == "zeros":
            raise ValueError('without attention only the bridge tells of the source: set bridge = "last"')
        return self


class Translator(Task):
    """The network of `Translate`, over `vocabulary` ids of the target and `source_vocabulary` of the source (None: the same ones)."""

    name: ClassVar[str] = "translate"

    def __init__(self, config: Translate, core: Core, vocabulary: int, source_vocabulary: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.network = EncoderDecoder(
            vocabulary,
            config.embedding,
            core.hidden,
            core.layers,
            source_vocabulary=source_vocabulary,
            cell=core.cell,
            direction=config.direction,
            shape=config.shape,
            score=config.attention,
            heads=config.heads,
            bridge=config.bridge,
            tied=config.tied,
            wait=config.wait,
            dropout=core.dropout,
            weight_drop=config.weight_drop,
            smoothing=config.smoothing,
        )

    def forward(self, batch: Batch, state: CoreState | None = None) -> tuple[Decoded, CoreState]:
        """What the decoder makes of the targets before each, and no state: a sentence never goes on in another batch."""
        inputs = self.network.inputs(batch.targets)
        return self.network(batch.values, batch.lengths, inputs, self.config.sampling), ()

    def loss(self, output: Decoded, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum, count) of -log p of the targets, in nats; in training smoothed."""
        return self.network.loss(output, batch.values, batch.targets, batch.weights.sum(1).long())

    def error(self, output: Decoded, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum, count) of what `watch` says: the loss, or 1 - GLEU."""
        if self.config.watch == "loss":
            return self.loss(output, batch)
        longest = LONGEST * batch.targets.shape[1]
        found = self.network.greedy(batch.values, batch.lengths, longest)
        lengths = batch.weights.sum(1).long().tolist()
        wanted = [ids[: n - 1] for ids, n in zip(batch.targets.tolist(), lengths, strict=True)]
        missed = count = 0
        for a, b in zip(found, wanted, strict=True):
            some, all_ = shared(a, b)
            missed, count = missed + all_ - some, count + all_
        return torch.tensor(float(missed)), torch.tensor(float(count))

    def export(self) -> Export:
        """The layers as the runtime plays them (runtime/sequence.py)."""
        return Export(*self.network.export())


def shared(a: list[int], b: list[int]) -> tuple[int, int]:
    """n-grams of 1 to 4 ids that both sentences have, and how many the one with more of them has."""
    counts = [
        Counter(tuple(ids[i : i + n]) for n in range(1, GRAMS + 1) for i in range(len(ids) - n + 1)) for ids in (a, b)
    ]
    return (counts[0] & counts[1]).total(), max(c.total() for c in counts)

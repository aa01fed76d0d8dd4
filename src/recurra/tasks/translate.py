"""Translate: a sentence becomes another. The network is nn/sequence.py's: an encoder, and a decoder that attends to it.

loss   = -log p(y_t | y_1 ... y_{t-1}, source)                smoothed (Szegedy et al. 2016)
BLEU   = min(1, e^(1 - r/c)) (p_1 p_2 p_3 p_4)^(1/4)           of what is written greedily, over tokens: Papineni et al. 2002
         p_n: n-grams of the c written tokens that are also among the r wanted ones; 1 / (2^k of them) for the kth that has none
"""

import math
from collections import Counter
from collections.abc import Sequence
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
    watch: Literal["loss", "bleu"] = Field(
        default="loss",
        description="what decides which epoch is kept: the loss, or the BLEU of what is written greedily, token by token",
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
        """(sum, count) of what `watch` says: the loss, or what BLEU is made of, [errors]."""
        if self.config.watch == "loss":
            return self.loss(output, batch)
        longest = LONGEST * batch.targets.shape[1]
        found = self.network.greedy(batch.values, batch.lengths, longest)
        lengths = batch.weights.sum(1).long().tolist()
        wanted = [ids[: n - 1] for ids, n in zip(batch.targets.tolist(), lengths, strict=True)]
        parts = [matches(a, b) for a, b in zip(found, wanted, strict=True)]
        return torch.tensor(parts, dtype=torch.float64).sum(0), torch.tensor(1.0)

    @property
    def errors(self) -> int:
        """One for the loss; the counts of `matches` for BLEU."""
        return 1 if self.config.watch == "loss" else 2 * GRAMS + 2

    def overall(self, total: Sequence[float], count: float) -> float:
        """The mean loss, or 1 - BLEU."""
        return super().overall(total, count) if self.config.watch == "loss" else 1.0 - bleu(total)

    def export(self) -> Export:
        """The layers as the runtime plays them (runtime/sequence.py)."""
        return Export(*self.network.export())


def matches(found: list[int], wanted: list[int]) -> list[int]:
    """What BLEU is made of: the n-grams, n from 1 to 4, that both have; those that are found; tokens found and wanted."""
    same, there = [], []
    for n in range(1, GRAMS + 1):
        a, b = (Counter(tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)) for ids in (found, wanted))
        same.append((a & b).total())
        there.append(a.total())
    return [*same, *there, len(found), len(wanted)]


def bleu(counts: Sequence[float]) -> float:
    """BLEU from the sums of `matches` over all sentences, 0 to 1; of n-grams none of which is right 1/2, 1/4, ... are taken to be."""
    same, there, (found, wanted) = counts[:GRAMS], counts[GRAMS : 2 * GRAMS], counts[2 * GRAMS :]
    if not all(there) or not same[0]:
        return 0.0
    half, logs = 1.0, 0.0
    for right, n in zip(same, there, strict=True):
        half = half / 2 if not right else half
        logs += math.log((right or half) / n)
    return math.exp(logs / GRAMS + min(0.0, 1.0 - wanted / found))

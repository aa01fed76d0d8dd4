"""Generate: a language model, which says of every token how probable it is after all that came before it.

    h_t             = encoder(token_t, h_{t-1})                               nn/encoder.py; the only memory
    log p(next | t) = log softmax(W drop(h_t) + b)                            `tied`: W is the embedding          Press and Wolf 2017
    loss            = -log p(token_{t+1} | t)  + alpha |drop(h_t)|^2 + beta |h_t - h_{t-1}|^2                     Merity et al. 2018

For large vocabularies `cutoffs` makes the softmax adaptive (Grave et al. 2017): rare tokens, those of high ids, share narrow projections.
"""

import math
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from recurra.config import config
from recurra.data.batch import Batch
from recurra.errors import RecipeError
from recurra.nn.encoder import Encoder, locked
from recurra.tasks.task import Core, CoreState, Export, Task, arrays

NARROWER = 4  # each cluster of rarer tokens is seen through so many times fewer numbers


@config
class Generate:
    """Learn a language from text: generate more of it, and say how surprising a text is."""

    embedding: int | None = Field(default=None, ge=1, description="numbers a token; none: as many as hidden")
    tied: bool = Field(default=True, description="one matrix for the tokens' vectors and the output layer")
    weight_drop: float = Field(
        default=0.0, ge=0, lt=1, description="share of the recurrent weights dropped, in training"
    )
    word_dropout: float = Field(default=0.0, ge=0, lt=1, description="share of the vocabulary dropped, in training")
    input_dropout: float = Field(default=0.0, ge=0, lt=1, description="share of a token's numbers dropped, in training")
    output_dropout: float | None = Field(
        default=None, ge=0, lt=1, description="share of the last layer's output dropped, in training; none: dropout"
    )
    alpha: float = Field(default=0.0, ge=0, description="weight of the squares of the output (AR)")
    beta: float = Field(default=0.0, ge=0, description="weight of the squares of the output's changes (TAR)")
    vary: bool = Field(
        default=False, description="learn from chunks of random length, with learning rates to match, as AWD-LSTM"
    )
    cutoffs: tuple[int, ...] = Field(
        default=(), description="adaptive softmax: first ids of the clusters of rare tokens, e.g. 2000,10000"
    )
    initial: float | None = Field(
        default=None, gt=0, description="all weights start between -initial and initial; none: by the layers' sizes"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(a >= b for a, b in pairwise((0, *self.cutoffs))):
            raise ValueError("cutoffs must ascend from 1 on")
        if self.cutoffs and self.tied:
            raise ValueError("an adaptive softmax has no matrix to tie: with cutoffs set tied = false")
        return self


class LanguageModel(Task):
    """The network of `Generate`, over `vocabulary` tokens.

    Its output is what the output layer reads, [B, T, outputs]: the softmax is taken in `loss`, since an adaptive one must know the targets.
    """

    name: ClassVar[str] = "generate"

    def __init__(self, config: Generate, core: Core, vocabulary: int) -> None:
        super().__init__()
        self.config, self.core_config, self.vocabulary = config, core, vocabulary
        width = config.embedding or core.hidden
        last = width if config.tied else core.hidden
        self.encoder = Encoder(
            vocabulary,
            width,
            (core.hidden,) * (core.layers - 1) + (last,),
            cell=core.cell,
            word_dropout=config.word_dropout,
            input_dropout=config.input_dropout,
            dropout=core.dropout,
            weight_drop=config.weight_drop,
        )
        self.output_dropout = core.dropout if config.output_dropout is None else config.output_dropout
        self.softmax: nn.Module
        if config.cutoffs:
            if config.cutoffs[-1] >= vocabulary or last < NARROWER ** len(config.cutoffs):
                most = f"at most {int(math.log(last, NARROWER))} of them, below the {vocabulary} tokens"
                raise RecipeError(f"cutoffs = {config.cutoffs}: {last} units and this vocabulary take {most}")
            self.softmax = nn.AdaptiveLogSoftmaxWithLoss(
                last, vocabulary, list(config.cutoffs), NARROWER, head_bias=True
            )
        else:
            self.softmax = nn.Linear(last, vocabulary)
            if config.tied:
                self.softmax.weight = self.encoder.embedding.weight
        self._initialise()

    def _initialise(self) -> None:
        initial = self.config.initial
        with torch.no_grad():
            if initial is not None:
                for parameter in self.parameters():
                    parameter.uniform_(-initial, initial)
                return
            if isinstance(self.softmax, nn.Linear):
                self.softmax.bias.zero_()
            if self.core_config.cell == "lstm":  # remember at first: Jozefowicz et al., 2015
                for layer, size in zip(self.encoder.stack.layers, self.encoder.stack.sizes, strict=True):
                    layer.get_parameter("bias_ih_l0")[size : 2 * size] += 1.0

    def forward(self, batch: Batch, state: CoreState | None = None) -> tuple[Tensor, CoreState]:
        """What the output layer reads after each of the ids `batch.values` [B, T], and the encoder's state after them."""
        return self.encoder(batch.values, state)

    def loss(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum, count) of -log p of the ids `batch.targets` [B, T], in nats; in training with AR and TAR."""
        dropped = locked(output, self.output_dropout, self.training)
        count = batch.weights.sum()
        total = (self.surprise(dropped, batch.targets) * batch.weights).sum()
        if self.training and self.config.alpha:
            total = total + count * self.config.alpha * dropped.square().mean()
        if self.training and self.config.beta and output.shape[1] > 1:
            total = total + count * self.config.beta * (output[:, 1:] - output[:, :-1]).square().mean()
        return total, count

    def surprise(self, output: Tensor, targets: Tensor) -> Tensor:
        """-log p of `targets` [B, T] in nats, [B, T], for output [B, T, outputs]."""
        if isinstance(self.softmax, nn.AdaptiveLogSoftmaxWithLoss):
            return -self.softmax(output.flatten(0, 1), targets.flatten()).output.view_as(targets)
        logits = self.softmax(output.flatten(0, 1))
        return nn.functional.cross_entropy(logits, targets.flatten(), reduction="none").view_as(targets)

    def log_probabilities(self, output: Tensor) -> Tensor:
        """output [..., outputs] -> log p of every token [..., vocabulary], in nats."""
        if isinstance(self.softmax, nn.AdaptiveLogSoftmaxWithLoss):
            return self.softmax.log_prob(output.flatten(0, -2)).unflatten(0, output.shape[:-1])
        return self.softmax(output).log_softmax(-1)

    def export(self) -> Export:
        """The layers as the runtime plays them (runtime/generate.py). A tied matrix is saved once."""
        weights = arrays(self.encoder, "encoder") | arrays(self.softmax, "softmax")
        layers: list[dict[str, Any]] = [{"kind": "embedding", "name": "encoder.embedding"}]
        for k in range(len(self.encoder.stack.sizes)):
            layers.append({"kind": self.core_config.cell, "name": f"encoder.stack.layers.{k}", "layers": 1})
        if self.config.cutoffs:
            layers.append({"kind": "adaptive", "name": "softmax", "cutoffs": list(self.config.cutoffs)})
        else:
            layers.append({"kind": "linear", "name": "softmax", "tied": self.config.tied})
        if self.config.tied:
            weights.pop("softmax.weight")
        return Export(layers, {name: np.ascontiguousarray(array) for name, array in weights.items()})

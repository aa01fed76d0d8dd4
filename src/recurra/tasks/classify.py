"""Classify: one label, or several, for a whole document or numeric series.

    y_1 ... y_T = stack(embedding of each token)         or of the numbers of each step; one direction or both
    r           = pool(y)                                 last, max, mean, attention, or the first three side by side
    output      = W drop(r) + b                           a logit a class; softmax, or a sigmoid each where labels are several

`last` is where each direction ends: a document's last step, and its first. `concat` is ULMFiT's pooling (Howard and Ruder 2018), attention
that of Yang et al. (2016): a_t = softmax_t(u . tanh(A y_t + a)).

A long document read forwards is taken in pieces of `chunk` steps, the state carried, and the gradient cut between them; only the last
`LEARNT` pieces have one, but all are pooled (ULMFiT's BPT3C). One that is read both ways is taken whole, for the backward direction begins
at its end.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, dropout

from recurra.config import config
from recurra.data.batch import Batch
from recurra.errors import RecipeError
from recurra.nn.encoder import Encoder, Parts, Stack
from recurra.tasks.task import Core, CoreState, Export, Task, arrays, detach

SPREAD = 0.5  # of log T before any document is seen
LEARNT = 4  # pieces of a long document, at its end, that the core learns from
POOLED = {"last": 1, "max": 1, "mean": 1, "attention": 1, "concat": 3}  # vectors that each pooling gives


@config
class Classify:
    """Label whole documents, or numeric series."""

    direction: Literal["both", "forward"] = Field(
        default="both", description="how the network reads; forward can stream: a verdict after every token"
    )
    pooling: Literal["last", "max", "mean", "attention", "concat"] = Field(
        default="max", description="how the states of all steps become one vector; concat: last, max and mean"
    )
    many: bool = Field(default=False, description="a document may have several labels, or none")
    balance: bool = Field(default=False, description="each class counts the same in the loss, however rare it is")
    embedding: int = Field(default=200, ge=1, description="numbers that stand for a token")
    vectors: str | None = Field(
        default=None,
        description="file of pretrained vectors that the training part's words start from (GloVe, word2vec, fastText .vec)",
    )
    word_dropout: float = Field(default=0.1, ge=0, lt=1, description="share of words dropped in training, everywhere")
    input_dropout: float = Field(default=0.5, ge=0, lt=1, description="share of the embedding's numbers dropped")
    weight_drop: float = Field(default=0.0, ge=0, lt=1, description="share of the recurrent weights dropped")
    encoder: str | None = Field(default=None, description="folder of a `generate` model whose encoder to start from")
    unfreeze: bool = Field(
        default=False, description="learn the head alone at first, and one group of layers more each epoch"
    )
    discriminate: float = Field(
        default=1.0,
        ge=1,
        description="each group of layers learns so many times slower than the one above (ULMFiT: 2.6)",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.encoder is not None and self.direction == "both":
            raise ValueError('a language model reads forwards: encoder needs direction = "forward"')
        if self.encoder is not None and self.vectors is not None:
            raise ValueError("encoder brings its own vectors: leave vectors out")
        return self


class Classifier(Task):
    """The network of `Classify` over tokens (`vocabulary` of them) or numeric frames (`channels` numbers each).

    class_weights [classes]: what each class counts in the loss; None: 1. chunk: steps of a piece of a long document. sizes: units of each
    layer, where they are not those of `core` (an encoder that was trained before).
    """

    name = "classify"

    def __init__(
        self,
        config: Classify,
        core: Core,
        *,
        classes: int,
        vocabulary: int | None = None,
        channels: int | None = None,
        class_weights: np.ndarray | None = None,
        chunk: int = 400,
        sizes: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        assert (vocabulary is None) != (channels is None), "tokens, or numeric frames"
        self.config, self.core_config, self.chunk = config, core, chunk
        both = config.direction == "both"
        sizes = sizes or (core.hidden,) * core.layers
        if vocabulary is not None:
            self.encoder: Encoder | Stack = Encoder(
                vocabulary,
                config.embedding,
                sizes,
                cell=core.cell,
                bidirectional=both,
                word_dropout=config.word_dropout,
                input_dropout=config.input_dropout,
                dropout=core.dropout,
                weight_drop=config.weight_drop,
            )
            self.stack = self.encoder.stack
        else:
            self.encoder = self.stack = Stack(
                channels or 0,
                sizes,
                cell=core.cell,
                bidirectional=both,
                dropout=core.dropout,
                weight_drop=config.weight_drop,
            )
        self.backward = sizes[-1] if both else 0
        width = self.encoder.outputs
        if config.pooling == "attention":
            self.attend = nn.Linear(width, core.hidden)
            self.score = nn.Linear(core.hidden, 1, bias=False)
        self.classify = nn.Linear(width * POOLED[config.pooling], classes)
        weights = np.ones(classes) if class_weights is None else class_weights
        self.class_weights: Tensor
        self.temperature: Tensor
        self.register_buffer("class_weights", torch.as_tensor(weights, dtype=torch.float32), persistent=False)
        self.register_buffer("temperature", torch.ones(1))
        if core.cell == "lstm":  # remember at first: Jozefowicz et al., 2015
            with torch.no_grad():
                for name, value in self.encoder.named_parameters():
                    if "bias_ih" in name:
                        value[len(value) // 4 : len(value) // 2] += 1.0

    def forward(self, batch: Batch, state: CoreState | None = None) -> tuple[Tensor, CoreState]:
        """Logits [B, classes] of whole documents, and no state: a document never goes on in another batch."""
        pooled = self._pool(self._states(batch.values, batch.lengths), batch.lengths)
        return self.classify(dropout(pooled, self.core_config.dropout, self.training)), ()

    def _states(self, values: Tensor, lengths: Tensor) -> Tensor:
        """The top layer's states [B, T, D]."""
        steps = values.shape[1]
        if self.backward or steps <= self.chunk:
            return self.encoder(values, None, lengths)[0]
        found: list[Tensor] = []
        state: Parts | None = None
        for start in range(0, steps, self.chunk):
            left = (lengths - start).clamp(0, self.chunk)
            piece = values[:, start : start + self.chunk]
            # pieces from here to the one that a row ends in, counted by the row alone: neighbours change nothing
            ahead = torch.div(lengths - 1 - start, self.chunk, rounding_mode="floor")
            learns = (left > 0) & (ahead < LEARNT)
            with torch.set_grad_enabled(torch.is_grad_enabled() and bool(learns.any())):
                y, state = self.encoder(piece, state, left.clamp(max=piece.shape[1]))
            state = detach(state)
            found.append(torch.where(learns[:, None, None], y, y.detach()))
        return torch.cat(found, dim=1)

    def _pool(self, y: Tensor, lengths: Tensor) -> Tensor:
        """[B, P * D] from the first `lengths` of the states y [B, T, D]; zeros where there is none."""
        kind = self.config.pooling
        there = torch.arange(y.shape[1], device=y.device) < lengths[:, None]
        some = (lengths > 0)[:, None]
        if kind == "attention":
            scores = self.score(torch.tanh(self.attend(y)))[..., 0].masked_fill(~there, -torch.inf)
            weights = torch.softmax(torch.where(some, scores, 0.0), dim=1)
            return torch.where(some, (weights[..., None] * y.masked_fill(~there[..., None], 0.0)).sum(1), 0.0)
        found: list[Tensor] = []
        if kind in ("last", "concat"):
            ahead = y.shape[2] - self.backward
            newest = y[torch.arange(len(y), device=y.device), (lengths - 1).clamp(min=0), :ahead]
            found.append(torch.where(some, torch.cat([newest, y[:, 0, ahead:]], dim=1), 0.0))
        if kind in ("max", "concat"):
            found.append(torch.where(some, y.masked_fill(~there[..., None], -torch.inf).amax(1), 0.0))
        if kind in ("mean", "concat"):
            found.append(y.masked_fill(~there[..., None], 0.0).sum(1) / lengths.clamp(min=1)[:, None])
        return torch.cat(found, dim=1)

    def loss(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum, count) of the cross entropy, each document weighed by its class (`many`: each label by its own weight)."""
        weights = self.class_weights
        if self.config.many:
            each = binary_cross_entropy_with_logits(output, batch.targets.float(), pos_weight=weights, reduction="none")
            return (each.mean(1) * batch.weights.flatten()).sum(), batch.weights.sum()
        weight = weights[batch.targets] * batch.weights
        return (cross_entropy(output, batch.targets, reduction="none") * weight).sum(), weight.sum()

    def error(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum, count) of wrong documents, and a thousandth of the loss, so that equals are told apart."""
        if self.config.many:
            wrong = ((output > 0) != (batch.targets > 0.5)).any(1)
        else:
            wrong = output.argmax(1) != batch.targets
        total, count = self.loss(output, batch)
        n = batch.weights.sum()
        return (wrong * batch.weights.flatten()).sum() + 1e-3 * total / count.clamp(min=1e-9) * n, n

    def groups(self) -> list[tuple[Iterable[nn.Parameter], float]]:
        """The head, then each layer from the top down, the embedding last; each slower by `discriminate`."""
        return [(group, self.config.discriminate**-k) for k, group in enumerate(self._groups())]

    def _groups(self) -> list[list[nn.Parameter]]:
        inside = {id(p) for p in self.encoder.parameters()}
        layers = [list(layer.parameters()) for layer in reversed(list(self.stack.layers))]
        groups = [[p for p in self.parameters() if id(p) not in inside], *layers]
        return [*groups, list(self.encoder.embedding.parameters())] if isinstance(self.encoder, Encoder) else groups

    def begin(self, epoch: int) -> None:
        """With `unfreeze`, thaw one more group, from the head down: Howard and Ruder 2018."""
        if self.config.unfreeze:
            for k, group in enumerate(self._groups()):
                for parameter in group:
                    parameter.requires_grad_(k <= epoch)

    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Set the temperature that gives labelled `batches` the least loss, each document alike (Guo et al. 2017).

        A prior on log T, normal around 0, keeps it near 1 where the documents are few, or all are right however sure the network is.
        """
        self.eval()
        with torch.no_grad():
            found = [(self(batch)[0], batch.targets, batch.weights.flatten()) for batch in batches]
        logits, targets, weights = (torch.cat(parts).double().cpu() for parts in zip(*found, strict=True))
        targets = targets if self.config.many else targets.long()

        def cost(log_t: float) -> float:
            scaled = logits / np.exp(log_t)
            if self.config.many:
                each = binary_cross_entropy_with_logits(scaled, targets, reduction="none").mean(1)
            else:
                each = cross_entropy(scaled, targets, reduction="none")
            return float((each * weights).sum()) + 0.5 * (log_t / SPREAD) ** 2

        grid = np.linspace(-2.0, 3.0, 26)
        at = float(grid[np.argmin([cost(x) for x in grid])])
        step = float(grid[1] - grid[0])
        for _ in range(12):
            step *= 0.5
            at = min((at - step, at, at + step), key=cost)
        self.temperature.fill_(float(np.exp(at)))

    def start_from(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take an encoder that was trained before: names as in its state_dict. Raises RecipeError where it is another."""
        try:
            self.encoder.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
        except RuntimeError as error:
            line = " ".join(str(error).splitlines()[1:2]).strip()
            raise RecipeError(f"encoder = {self.config.encoder!r} is not like this network: {line}") from None

    def export(self) -> Export:
        """The layers as the runtime plays them (runtime/classify.py)."""
        weights = arrays(self.encoder, "encoder")
        layers: list[dict[str, Any]] = []
        path = "encoder.layers"
        if isinstance(self.encoder, Encoder):
            layers.append({"kind": "embedding", "name": "encoder.embedding"})
            path = "encoder.stack.layers"
        for k in range(len(self.stack.layers)):
            layers.append({"kind": self.stack.cell, "name": f"{path}.{k}", "layers": 1, "both": bool(self.backward)})
        layers.append({"kind": "pool", "name": "pool", "pooling": self.config.pooling})
        heads = ("attend", "score", "classify") if self.config.pooling == "attention" else ("classify",)
        for name in heads:
            weights |= arrays(getattr(self, name), name)
            layers.append({"kind": "linear", "name": name})
        weights["temperature"] = self.temperature.detach().cpu().numpy().copy()
        return Export(layers, weights)

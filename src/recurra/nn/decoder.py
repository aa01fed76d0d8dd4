"""A recurrent decoder that attends to a memory while it reads its own tokens, in two shapes.

    gnmt (Wu et al. 2016)        h^0_t = layer_0(e_t);   context_t = attention(h^0_t);   h^k_t = layer_k([h^{k-1}_t; context_t]), k >= 1
    feeding (Luong et al. 2015)  h^0_t = layer_0([e_t; o_{t-1}]);   h^k_t = layer_k(h^{k-1}_t), k >= 1;   context_t = attention(h^top_t)
    both                         from the third layer on h^k_t + h^{k-1}_t;      o_t = tanh(W_o [h^top_t; context_t] + b)

gnmt: nothing that attention finds goes back into layer 0, so each layer runs as one kernel call over all steps; feeding is a loop.
Dropout, in training, holds for all steps of a row: on e, on what a layer above the first reads, and on o, which is fed as it is dropped.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from recurra.errors import RecipeError
from recurra.nn.attention import Attention, Memory
from recurra.nn.encoder import CELLS, RESIDUAL, Parts, locked

SHAPES = ("gnmt", "feeding")


class DecoderState(NamedTuple):
    """What the decoder remembers between two steps, B rows side by side."""

    layers: Parts  # (h, c) of each layer, one after the other; h alone for gru and rnn; each [1, B, H]
    output: Tensor  # [B, 1, O]: o of the step before
    past: Tensor  # [B, S]: what attention sees of the steps before
    step: int  # tokens read so far


class Decoded(NamedTuple):
    """What the decoder made of T tokens: what the output layer and the pointer read."""

    output: Tensor  # [B, T, O]: o
    weights: Tensor  # [B, T, S]: of attention
    context: Tensor  # [B, T, C]
    top: Tensor  # [B, T, H]: the last layer's h
    embedded: Tensor  # [B, T, E]: e


class Decoder(nn.Module):
    """`layers` layers of `hidden` units that read tokens through `embedding`, and `outputs` numbers a step for the output layer.

    wait: token t sees the memory's first t + wait steps alone, t from 0 (wait-k, Ma et al. 2019); None: all of it.
    scale: what e is multiplied with.
    Parameters: embedding.weight, layers.<k>.weight_ih_l0 ..., attention. ..., read.weight [O, H + C], read.bias.
    Raises RecipeError for an unknown shape, and for options that "feeding" hasn't.
    """

    def __init__(
        self,
        embedding: nn.Embedding,
        attention: Attention,
        hidden: int,
        layers: int,
        outputs: int,
        *,
        cell: str = "lstm",
        shape: str = "gnmt",
        wait: int | None = None,
        dropout: float = 0.0,
        weight_drop: float = 0.0,
        recurrent_dropout: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if shape not in SHAPES:
            raise RecipeError(f"the shape of a decoder is {' or '.join(SHAPES)}, not '{shape}'")
        if shape == "feeding" and (weight_drop or recurrent_dropout):
            raise RecipeError('weight_drop and recurrent_dropout hold for a whole sequence: they need shape = "gnmt"')
        if wait is not None and wait < 1:
            raise RecipeError(f"wait must be at least 1 token, not {wait}")
        self.hidden, self.outputs, self.cell, self.shape = hidden, outputs, cell, shape
        self.wait, self.dropout, self.scale = wait, dropout, scale
        first = embedding.embedding_dim + (outputs if shape == "feeding" else 0)
        above = hidden + (attention.outputs if shape == "gnmt" else 0)
        self.embedding = embedding
        self.layers = nn.ModuleList(
            CELLS[cell](
                above if k else first,
                hidden,
                batch_first=True,
                weight_drop=weight_drop,
                recurrent_dropout=recurrent_dropout,
            )
            for k in range(layers)
        )
        self.attention = attention
        self.read = nn.Linear(hidden + attention.outputs, outputs)

    def start(self, memory: Memory, h: list[Tensor] | None = None) -> DecoderState:
        """The state before the first token; h: each layer's first [B, H], None: zeros."""
        zeros = memory.values.new_zeros(1, len(memory.values), self.hidden)
        layers: list[Tensor] = []
        for k in range(len(self.layers)):
            layers.append(zeros if h is None else h[k].unsqueeze(0))
            layers += [zeros] if self.cell == "lstm" else []
        output = zeros.new_zeros(zeros.shape[1], 1, self.outputs)
        return DecoderState(tuple(layers), output, zeros.new_zeros(memory.valid.shape), 0)

    def forward(self, inputs: Tensor, memory: Memory, state: DecoderState) -> tuple[Decoded, DecoderState]:
        """inputs [B, T] (int64), the tokens read -> what comes of them, and the state after them. One by one or at once: the same."""
        e = locked(self.scale * self.embedding(inputs), self.dropout, self.training)
        there = None
        if self.wait is not None:
            read = torch.arange(state.step, state.step + inputs.shape[1], device=inputs.device) + self.wait
            there = torch.arange(memory.valid.shape[1], device=inputs.device) < read.unsqueeze(1)
        return (self._whole if self.shape == "gnmt" else self._loop)(e, memory, state, there)

    def _whole(
        self, e: Tensor, memory: Memory, state: DecoderState, there: Tensor | None
    ) -> tuple[Decoded, DecoderState]:
        """gnmt: layer after layer, each over all steps."""
        top, after = self._layer(0, e, state)
        context, weights, past = self.attention(top, memory, state.past, there)
        for k in range(1, len(self.layers)):
            x = locked(torch.cat([top, context], 2), self.dropout, self.training)
            h, last = self._layer(k, x, state)
            top, after = (h + top if k >= RESIDUAL else h), after + last
        o = locked(self.read(torch.cat([top, context], 2)).tanh(), self.dropout, self.training)
        return Decoded(o, weights, context, top, e), DecoderState(after, o[:, -1:], past, state.step + e.shape[1])

    def _loop(
        self, e: Tensor, memory: Memory, state: DecoderState, there: Tensor | None
    ) -> tuple[Decoded, DecoderState]:
        """feeding: step after step, each through all layers, under masks drawn once."""
        ones = [e.new_ones(len(e), 1, self.hidden)] * (len(self.layers) - 1) + [torch.ones_like(state.output)]
        masks = [locked(one, self.dropout, self.training) for one in ones]
        every: list[Decoded] = []
        for t in range(e.shape[1]):
            now = e[:, t : t + 1]
            top, after = self._layer(0, torch.cat([now, state.output], 2), state)
            for k in range(1, len(self.layers)):
                h, last = self._layer(k, top * masks[k - 1], state)
                top, after = (h + top if k >= RESIDUAL else h), after + last
            context, weights, past = self.attention(
                top, memory, state.past, None if there is None else there[t : t + 1]
            )
            o = self.read(torch.cat([top, context], 2)).tanh() * masks[-1]
            every.append(Decoded(o, weights, context, top, now))
            state = DecoderState(after, o, past, state.step + 1)
        return Decoded(*(torch.cat(parts, 1) for parts in zip(*every, strict=True))), state

    def _layer(self, k: int, x: Tensor, state: DecoderState) -> tuple[Tensor, Parts]:
        """Layer k over x, from the state on: its h at every step, and its part of the state after them."""
        if self.cell == "lstm":
            return self.layers[k](x, state.layers[2 * k : 2 * k + 2])
        h, last = self.layers[k](x, state.layers[k])
        return h, (last,)

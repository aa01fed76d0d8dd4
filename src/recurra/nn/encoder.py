"""Token ids to a state at every step: an embedding and a stack of recurrent layers, with AWD-LSTM's dropout.

    e_t = mask_input * embedding[id_t] * word_mask[id_t]        word_mask: a word is dropped wherever it stands    Gal and Ghahramani 2016
    h^0 = e;   h^k = mask_k * layer_k(h^{k-1})                  weight_drop on each W_hh                           Merity et al. 2018
    residual:  h^k = layer_k(mask * h^{k-1}) + h^{k-1}          from the third layer on                            Wu et al. 2016

Every mask is drawn once a call and holds for all its steps ("variational", "locked"), and what is kept is divided by 1 - p. The output of
the last layer is given as it is: its dropout is the head's. All of it in training alone.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from recurra.errors import RecipeError
from recurra.nn.recurrent import GRU, LSTM, RNN

RESIDUAL = 2  # the first layer, from 0, that adds its input
CELLS = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
Parts = tuple[Tensor, ...]  # the state: (h, c) of each layer, one after the other; h alone for gru and rnn


class Stack(nn.Module):
    """Recurrent layers of the given `sizes` one upon the other, `dropout` (one mask for all steps) between them.

    Parameters: layers.<k>.weight_ih_l0 and so on, torch's names for a single layer (`bidirectional`: and ..._reverse).
    bidirectional "first": layer 0 alone reads both ways. residual: layers from the third on add their input.
    Raises RecipeError for no layers, and for a residual layer that is not as wide as its input.
    """

    def __init__(
        self,
        inputs: int,
        sizes: Sequence[int],
        *,
        cell: str = "lstm",
        bidirectional: bool | Literal["first"] = False,
        residual: bool = False,
        dropout: float = 0.0,
        weight_drop: float = 0.0,
        recurrent_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not sizes:
            raise RecipeError("a stack needs the size of at least one layer, not ()")
        self.inputs, self.sizes, self.cell, self.dropout = inputs, tuple(sizes), cell, dropout
        self.residual = residual
        self.both = [bool(bidirectional) and (k == 0 or bidirectional != "first") for k in range(len(self.sizes))]
        *widths, self.outputs = inputs, *(size * (1 + both) for size, both in zip(self.sizes, self.both, strict=True))
        if residual and len({*widths[RESIDUAL:], self.outputs}) > 1:
            raise RecipeError(f"layers that add their input must be as wide as it, so residual can't take {self.sizes}")
        self.layers = nn.ModuleList(
            CELLS[cell](
                width,
                size,
                batch_first=True,
                bidirectional=both,
                weight_drop=weight_drop,
                recurrent_dropout=recurrent_dropout,
            )
            for width, size, both in zip(widths, self.sizes, self.both, strict=True)
        )

    def forward(self, x: Tensor, state: Parts | None = None, lengths: Tensor | None = None) -> tuple[Tensor, Parts]:
        """x [B, T, inputs] -> the last layer's [B, T, outputs] and the state after it. `state` None: from zeros.

        The state: each layer's (h, c), or (h,), one after the other, each [its directions, B, size]. `lengths` [B]: steps from there on
        give 0 and leave the state alone.
        """
        parts = 2 if self.cell == "lstm" else 1
        after: list[Tensor] = []
        for k, layer in enumerate(self.layers):
            before = None if state is None else state[k * parts : (k + 1) * parts]
            seen = locked(x, self.dropout if k else 0.0, self.training)
            y, last = layer(seen, before if before is None or parts == 2 else before[0], lengths=lengths)
            x = x + y if self.residual and k >= RESIDUAL else y
            after += last if parts == 2 else [last]
        return x, tuple(after)


class Encoder(nn.Module):
    """`vocabulary` words as vectors of `embedding` numbers, and a `Stack` over them. Parameters: embedding.weight, stack.layers.<k>. ...

    word_dropout: share of words dropped, input_dropout: of the embedding's numbers, dropout: of what goes from layer to layer,
    weight_drop: of W_hh's numbers, recurrent_dropout: of the h that W_hh sees. scale: what vectors are multiplied with.
    """

    def __init__(
        self,
        vocabulary: int,
        embedding: int,
        sizes: Sequence[int],
        *,
        cell: str = "lstm",
        bidirectional: bool | Literal["first"] = False,
        residual: bool = False,
        word_dropout: float = 0.0,
        input_dropout: float = 0.0,
        dropout: float = 0.0,
        weight_drop: float = 0.0,
        recurrent_dropout: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.word_dropout, self.input_dropout, self.scale = word_dropout, input_dropout, scale
        self.embedding = nn.Embedding(vocabulary, embedding)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        self.stack = Stack(
            embedding,
            sizes,
            cell=cell,
            bidirectional=bidirectional,
            residual=residual,
            dropout=dropout,
            weight_drop=weight_drop,
            recurrent_dropout=recurrent_dropout,
        )

    @property
    def outputs(self) -> int:
        """Width of what `forward` gives."""
        return self.stack.outputs

    def embed(self, ids: Tensor) -> Tensor:
        """ids [B, T] (int64) -> their vectors [B, T, embedding], with dropout in training."""
        x = self.scale * self.embedding(ids) if self.scale != 1.0 else self.embedding(ids)
        if self.training and self.word_dropout:
            kept = torch.rand(self.embedding.num_embeddings, device=ids.device) >= self.word_dropout
            x = x * (kept / (1.0 - self.word_dropout))[ids].unsqueeze(-1)
        return locked(x, self.input_dropout, self.training)

    def forward(self, ids: Tensor, state: Parts | None = None, lengths: Tensor | None = None) -> tuple[Tensor, Parts]:
        """ids [B, T] (int64) -> [B, T, outputs] and the state after them; `state`, `lengths` and errors as in `Stack.forward`."""
        return self.stack(self.embed(ids), state, lengths)


def locked(x: Tensor, p: float, training: bool) -> Tensor:
    """x [B, T, F] with numbers dropped with probability p, the same at every step of a row; x itself where not in training."""
    if not training or not p:
        return x
    kept = torch.rand(x.shape[0], 1, x.shape[2], device=x.device, dtype=x.dtype) >= p
    return x * (kept / (1.0 - p))

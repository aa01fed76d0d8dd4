"""RNN, LSTM and GRU: drop-in for torch.nn's, with lengths and resets, on recurra's kernels.

Same constructor, same parameter names, same initial weights from the same seed, same shapes. More: `kernel=` in the constructor, and in
`forward` the keywords `lengths` and `reset`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from recurra.cells import CELLS, Cell
from recurra.errors import DataError, RecipeError, UnsupportedError, nearest
from recurra.kernels import KERNELS, scan

State = tuple[Tensor, ...]


class RNN(torch.nn.RNN):
    """torch.nn.RNN: h' = φ(W_ih x + b_ih + W_hh h + b_hh), φ = tanh or relu. See `forward`."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        kernel: str = "auto",
    ):
        before = (input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional)
        super().__init__(*before, device=device, dtype=dtype)
        self.kernel = _known(kernel)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input: Tensor,
        hx: Tensor | None = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        reset: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """input [T, B, I] (or [B, T, I] with batch_first, or [T, I]), hx [layers * directions, B, H] -> output [T, B, D * H], h_n.

        `lengths` [B]: steps from there on give 0 and leave the state alone; the backward direction starts at a row's own last step.
        `reset` [B, T]: zeroes the state BEFORE step t, as if a new sequence began there, in both directions.
        Raises DataError for wrong lengths or reset, UnsupportedError for a PackedSequence; torch's errors for the rest.
        """
        outputs, (h,) = _run(self, f"rnn_{self.nonlinearity}", input, None if hx is None else (hx,), lengths, reset)
        return outputs, h


class GRU(torch.nn.GRU):
    """torch.nn.GRU (Cho et al. 2014; the reset gate after the recurrent product). See `forward`."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        kernel: str = "auto",
    ):
        before = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        super().__init__(
            *before, device=device, dtype=dtype
        )  # torch's GRU would take a positional device for proj_size
        self.kernel = _known(kernel)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input: Tensor,
        hx: Tensor | None = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        reset: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """input [T, B, I] (or [B, T, I] with batch_first, or [T, I]), hx [layers * directions, B, H] -> output [T, B, D * H], h_n.

        `lengths`, `reset` and errors as in `RNN.forward`.
        """
        outputs, (h,) = _run(self, "gru", input, None if hx is None else (hx,), lengths, reset)
        return outputs, h


class LSTM(torch.nn.LSTM):
    """torch.nn.LSTM (Hochreiter and Schmidhuber 1997, with forget gates). `proj_size` is not there yet. See `forward`."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        kernel: str = "auto",
    ):
        if proj_size:
            raise UnsupportedError(
                f"recurra's LSTM has no projection (proj_size={proj_size}); use proj_size=0 or torch.nn.LSTM"
            )
        before = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        super().__init__(*before, device=device, dtype=dtype)
        self.kernel = _known(kernel)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input: Tensor,
        hx: tuple[Tensor, Tensor] | None = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        reset: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """input [T, B, I] (or [B, T, I] with batch_first, or [T, I]), hx (h, c) each [layers * directions, B, H] -> output, (h_n, c_n).

        `lengths`, `reset` and errors as in `RNN.forward`.
        """
        outputs, (h, c) = _run(self, "lstm", input, hx, lengths, reset)
        return outputs, (h, c)


def _known(kernel: str) -> str:
    if kernel != "auto" and kernel not in KERNELS:
        raise RecipeError(f"kernel '{kernel}' is unknown; {nearest(kernel, [*KERNELS, 'auto'])}")
    return kernel


def _cell(layer: torch.nn.RNNBase, name: str, suffix: str) -> Cell:
    """The weights of one layer and direction as a cell. Read by name each time, so tied and parametrised weights work."""
    w_ih, w_hh = getattr(layer, f"weight_ih_{suffix}"), getattr(layer, f"weight_hh_{suffix}")
    if layer.bias:
        return CELLS[name](w_ih, w_hh, getattr(layer, f"bias_ih_{suffix}"), getattr(layer, f"bias_hh_{suffix}"))
    none = w_ih.new_zeros(w_ih.shape[0])
    return CELLS[name](w_ih, w_hh, none, none)


def _run(
    layer: RNN | GRU | LSTM,
    name: str,
    input: Tensor,
    hx: State | None,
    lengths: Tensor | Sequence[int] | None,
    reset: Tensor | None,
) -> tuple[Tensor, State]:
    if isinstance(input, PackedSequence):
        raise UnsupportedError(
            "recurra's layers take a padded batch, not a PackedSequence: pass the padded tensor and lengths="
        )
    if input.dim() not in (2, 3):
        raise DataError(f"input must be [T, B, I] or, for one sequence, [T, I], not {list(input.shape)}")
    batched = input.dim() == 3
    time_first = batched and not layer.batch_first
    x = input if time_first else input.transpose(0, 1) if batched else input.unsqueeze(1)
    # torch's own checks of width, dtype and state, on the shape that they expect
    checked = x.transpose(0, 1) if layer.batch_first else x
    parts = len(CELLS[name].State._fields)
    directions = 2 if layer.bidirectional else 1
    rows = x.shape[1]
    if hx is None:
        zeros = x.new_zeros(layer.num_layers * directions, rows, layer.hidden_size)
        state: State = (zeros,) * parts
    else:
        state = tuple(part if batched else part.unsqueeze(1) for part in hx)
    layer.check_forward_args(checked, state if parts > 1 else state[0], None)  # pyright: ignore[reportArgumentType]
    if lengths is not None:
        lengths = torch.as_tensor(lengths, device=x.device)
    if reset is not None and not batched and reset.dim() == 1:
        reset = reset.unsqueeze(0)

    last: list[State] = []
    for k in range(layer.num_layers):
        outputs: list[Tensor] = []
        for direction in range(directions):
            cell = _cell(layer, name, f"l{k}" + ("_reverse" if direction else ""))
            first = cell.State(*(part[k * directions + direction] for part in state))
            if direction:
                run = scan(
                    cell,
                    backwards(x, lengths),
                    first,
                    lengths=lengths,
                    reset=None if reset is None else backwards_reset(reset, lengths),
                    kernel=layer.kernel,
                )
                outputs.append(backwards(run.outputs, lengths))
            else:
                run = scan(cell, x, first, lengths=lengths, reset=reset, kernel=layer.kernel)
                outputs.append(run.outputs)
            last.append(tuple(run.state))
        x = outputs[0] if directions == 1 else torch.cat(outputs, -1)
        if layer.dropout and layer.training and k + 1 < layer.num_layers:
            x = torch.nn.functional.dropout(x, layer.dropout)
    final = tuple(torch.stack(part) for part in zip(*last, strict=True))
    if not batched:
        return x.squeeze(1), tuple(part.squeeze(1) for part in final)
    return (x if time_first else x.transpose(0, 1)), final


def backwards(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x [T, B, ...] with each row's first `lengths` steps turned round and its padding left where it is."""
    if lengths is None:
        return x.flip(0)
    t = torch.arange(x.shape[0], device=x.device)[:, None]
    source = torch.where(t < lengths, lengths - 1 - t, t)  # [T, B]
    return x[source, torch.arange(x.shape[1], device=x.device)]


def backwards_reset(reset: Tensor, lengths: Tensor | None) -> Tensor:
    """reset [B, T] for the backward direction: a cut BEFORE step t lies, seen from the other side, before step t - 1."""
    cuts = reset.bool().roll(-1, 1)
    cuts[:, -1] = False
    if lengths is not None:  # a cut at a row's end cuts nothing
        cuts = cuts & (torch.arange(1, reset.shape[1] + 1, device=reset.device) < lengths[:, None])
    return backwards(cuts.T, lengths).T

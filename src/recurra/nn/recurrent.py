"""RNN, LSTM and GRU: drop-in for torch.nn's, with lengths, resets, every state and regularisation, on recurra's kernels.

Same constructor, parameter names, initial weights from the same seed, shapes, errors. More, all by keyword:

    kernel              "auto", or one of recurra.kernels.KERNELS
    layer_norm          LayerNorm on both parts of the gate sums and on what the LSTM's output shows of c      Ba et al. 2016
    recurrent_dropout   one mask for all steps on the h that weight_hh sees                          Gal and Ghahramani 2016
    weight_drop         one mask a call on weight_hh                                                       Merity et al. 2018
    zoneout_h, _c       a unit keeps its old value with this probability                                  Krueger et al. 2017
    checkpoint          "none", "gates" or "every 16": what backward computes again for memory ("cpu" alone) Chen et al. 2016
    peepholes           LSTM: the gates see c                                                     Gers and Schmidhuber 2000
    coupled             LSTM: f = 1 - i, so three blocks of weights, i g o                                  Greff et al. 2017

They are kin of torch.nn.RNNBase but not of torch.nn.LSTM, RNN and GRU: torch.compile breaks its graph at those. `recurra.nn.convert`
swaps them in a model, both ways. torch.compile, torch.export and torch.func take them; torch.jit.trace (and so the ONNX exporter with
dynamo=False, of a module around the layer) without lengths, resets and options; torch.jit.script, torch.fx and the ONNX exporter with
dynamo=True don't.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.utils.rnn import PackedSequence

from recurra.errors import RecipeError, UnsupportedError
from recurra.kernels.scan import check_kernel, probability, saved_steps
from recurra.nn.stack import run_layers

Lengths = Tensor | Sequence[int] | None
MODES = {"tanh": "RNN_TANH", "relu": "RNN_RELU"}
_ONLY_LSTM = "proj_size argument is only supported for LSTM, not RNN or GRU"  # torch's words


class Recurrent(torch.nn.RNNBase):
    """What the three share: options, further parameters, and what is printed."""

    kernel = "auto"
    layer_norm = False
    recurrent_dropout = 0.0
    weight_drop = 0.0
    zoneout_h = 0.0
    checkpoint = "none"
    peepholes = False
    coupled = False
    zoneout_c = 0.0
    OPTIONS = (
        "kernel",
        "layer_norm",
        "recurrent_dropout",
        "weight_drop",
        "zoneout_h",
        "checkpoint",
        "peepholes",
        "coupled",
        "zoneout_c",
    )

    def _set_options(self, options: dict[str, Any], device: Any, dtype: torch.dtype | None) -> None:
        """Check and keep what differs from the defaults, and add the parameters that it asks for, after torch's."""
        check_kernel(options["kernel"])
        saved_steps(options["checkpoint"])
        for name, value in options.items():
            default = getattr(type(self), name)
            if isinstance(default, float):
                value = probability(name, value)
            elif isinstance(default, bool) and not isinstance(value, bool):
                raise RecipeError(f"{name} must be True or False, not {value!r}")
            if value != default:
                setattr(self, name, value)
        if self.coupled and self.layer_norm:
            raise RecipeError(
                "coupled=True has no layer_norm: f = 1 - i holds for the sums as they are; use one of them"
            )
        hidden, gates = self.hidden_size, self.get_parameter("weight_ih_l0").shape[0]
        further: list[tuple[str, int]] = []
        if self.peepholes:
            further.append(("weight_peephole", 2 * hidden if self.coupled else 3 * hidden))
        if self.layer_norm:
            further += [("gain_ih", gates), ("gain_hh", gates)]
            further += [("gain_c", hidden), ("bias_c", hidden)] if self.mode == "LSTM" else []
        for k in range(self.num_layers):
            for suffix in ("", "_reverse")[: 2 if self.bidirectional else 1]:
                for name, size in further:
                    setattr(self, f"{name}_l{k}{suffix}", Parameter(torch.empty(size, device=device, dtype=dtype)))
        self._reset([name for name in self._parameters if name not in self._flat_weights_names])

    def reset_parameters(self) -> None:
        """Every weight and bias from U(-1/sqrt(H), 1/sqrt(H)), as torch; gains 1 and bias_c 0, as LayerNorm."""
        self._reset(list(self._parameters))

    def _reset(self, names: list[str]) -> None:
        bound = 1.0 / math.sqrt(self.hidden_size)  # to the last bit as torch has it
        for name in names:
            weight = self._parameters[name]
            assert weight is not None
            if name.startswith("gain_"):
                torch.nn.init.ones_(weight)
            elif name.startswith("bias_c_"):
                torch.nn.init.zeros_(weight)
            else:
                torch.nn.init.uniform_(weight, -bound, bound)

    def flatten_parameters(self) -> None:
        """Lay the weights of each layer and direction together, as one call of cuDNN wants them. Nothing on a CPU."""
        weights: list[Any] = self._flat_weights
        if self.coupled or not all(isinstance(weight, Tensor) and weight.is_cuda for weight in weights):
            return
        same = len({weight.dtype for weight in weights}) == 1 and torch.backends.cudnn.is_acceptable(weights[0])
        if not same or len({weight.data_ptr() for weight in weights}) != len(weights):
            return  # tied weights can't be moved apart
        from torch.backends.cudnn import rnn

        mode = rnn.get_cudnn_mode(self.mode)
        with torch.cuda.device_of(weights[0]), torch.no_grad():
            for group in self.all_weights:
                sizes = (group[0].shape[1], mode, self.hidden_size, self.proj_size, 1, False, False)
                torch.ops.aten._cudnn_rnn_flatten_weight(group, len(group), *sizes)

    def __prepare_scriptable__(self) -> Any:
        """What torch.jit.script asks for first."""
        raise UnsupportedError(
            "torch.jit.script can't compile recurra's layers: use torch.export or torch.compile, "
            "or recurra.nn.convert(model, back=True) before it"
        )

    def _slow_forward(self, *input: Any, **kwargs: Any) -> Any:
        """What torch.jit.trace calls for `forward`, and the ONNX exporter with dynamo=False with every default, by position."""
        if len(input) > 2:
            raise UnsupportedError(
                "torch.onnx.export with dynamo=False can't call a layer that has lengths=, reset= and states= by itself: "
                "export a module around it, or recurra.nn.convert(layer, back=True)"
            )
        return super()._slow_forward(*input, **kwargs)

    def extra_repr(self) -> str:
        """torch's, and our options where set."""
        options = [f"{name}={getattr(self, name)}" for name in self.OPTIONS if name in self.__dict__]
        return ", ".join([super().extra_repr(), *options])


class RNN(Recurrent):
    """torch.nn.RNN: h' = φ(W_ih x + b_ih + W_hh h + b_hh), φ = tanh or relu. Options: see the module; shapes: see `forward`."""

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
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        kernel: str = "auto",
        layer_norm: bool = False,
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
        zoneout_h: float = 0.0,
        checkpoint: str = "none",
    ):
        if proj_size:  # it has a place among the positional arguments of torch's GRU and RNN, so it has one here
            raise ValueError(_ONLY_LSTM)
        if nonlinearity not in MODES:
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        sizes = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        super().__init__(MODES[nonlinearity], *sizes, device=device, dtype=dtype)
        self.nonlinearity = nonlinearity
        options = {
            "kernel": kernel,
            "layer_norm": layer_norm,
            "recurrent_dropout": recurrent_dropout,
            "weight_drop": weight_drop,
            "zoneout_h": zoneout_h,
            "checkpoint": checkpoint,
        }
        self._set_options(options, device, dtype)

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        *,
        lengths: Lengths = None,
        reset: Tensor | None = None,
        states: bool = False,
    ) -> Any:
        """input [T, B, I] (or [B, T, I] with batch_first, or [T, I]), hx [layers * directions, B, H] -> output [T, B, D * H], h_n.

        `lengths` [B]: steps from there on give 0 and leave the state alone; the backward direction starts at a row's own last step.
        `reset` [B, T]: zeroes the state BEFORE step t, as if a new sequence began there, in both directions.
        `states`: also every state, a third element: for each layer the cell's State, each field [T, B, D * H] (laid out as output,
        and no view of it: to change one in place leaves the other).
        A PackedSequence gives one, as torch's; it has neither lengths nor reset nor states.
        The output may be changed in place before backward, which then computes it again; not through `.data` or numpy, which torch
        does not see. What a compiled graph gives out may be changed within the graph only: torch raises its error after it.
        Raises DataError for wrong lengths or reset; torch's errors for the rest.
        """
        output, (h,), *every = run_layers(self, input, None if hx is None else (hx,), lengths, reset, states)
        return output, h, *every


class GRU(Recurrent):
    """torch.nn.GRU (Cho et al. 2014; the reset gate after the recurrent product). Options: see the module; shapes: see `forward`."""

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
        layer_norm: bool = False,
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
        zoneout_h: float = 0.0,
        checkpoint: str = "none",
    ):
        if proj_size:
            raise ValueError(_ONLY_LSTM)
        sizes = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        super().__init__("GRU", *sizes, device=device, dtype=dtype)
        options = {
            "kernel": kernel,
            "layer_norm": layer_norm,
            "recurrent_dropout": recurrent_dropout,
            "weight_drop": weight_drop,
            "zoneout_h": zoneout_h,
            "checkpoint": checkpoint,
        }
        self._set_options(options, device, dtype)

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        *,
        lengths: Lengths = None,
        reset: Tensor | None = None,
        states: bool = False,
    ) -> Any:
        """input [T, B, I] (or [B, T, I] with batch_first, or [T, I]), hx [layers * directions, B, H] -> output [T, B, D * H], h_n.

        The rest, errors too, as in `RNN.forward`.
        """
        output, (h,), *every = run_layers(self, input, None if hx is None else (hx,), lengths, reset, states)
        return output, h, *every


class LSTM(Recurrent):
    """torch.nn.LSTM (Hochreiter and Schmidhuber 1997, with forget gates). Options: see the module; shapes: see `forward`.

    Further parameters of each layer and direction, where asked for: weight_peephole [3H] (rows i f o; coupled [2H], i o), gain_ih and
    gain_hh [4H], gain_c and bias_c [H].
    """

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
        layer_norm: bool = False,
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
        zoneout_h: float = 0.0,
        checkpoint: str = "none",
        peepholes: bool = False,
        coupled: bool = False,
        zoneout_c: float = 0.0,
    ):
        # RNNBase gives a GRU three blocks of weights, which is what a coupled LSTM has
        sizes = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size)
        super().__init__("GRU" if coupled else "LSTM", *sizes, device=device, dtype=dtype)
        self.mode = "LSTM"
        options = {
            "kernel": kernel,
            "layer_norm": layer_norm,
            "recurrent_dropout": recurrent_dropout,
            "weight_drop": weight_drop,
            "zoneout_h": zoneout_h,
            "checkpoint": checkpoint,
            "peepholes": peepholes,
            "coupled": coupled,
            "zoneout_c": zoneout_c,
        }
        self._set_options(options, device, dtype)

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: tuple[Tensor, Tensor] | None = None,
        *,
        lengths: Lengths = None,
        reset: Tensor | None = None,
        states: bool = False,
    ) -> Any:
        """input [T, B, I] (or [B, T, I] with batch_first, or [T, I]), hx (h, c) each [layers * directions, B, H] -> output, (h_n, c_n).

        With a projection h and output are proj_size wide. The rest, errors too, as in `RNN.forward`.
        """
        return run_layers(self, input, hx, lengths, reset, states)

    def get_expected_cell_size(self, input: Tensor, batch_sizes: Tensor | None) -> tuple[int, int, int]:
        """The shape of c_0; torch.nn.LSTM's."""
        layers, rows, _ = self.get_expected_hidden_size(input, batch_sizes)
        return layers, rows, self.hidden_size

    def check_forward_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input: Tensor, hidden: tuple[Tensor, Tensor], batch_sizes: Tensor | None
    ) -> None:
        """torch.nn.LSTM's errors for a wrong input or state."""
        self.check_input(input, batch_sizes)
        expected = self.get_expected_hidden_size(input, batch_sizes), self.get_expected_cell_size(input, batch_sizes)
        for k in (0, 1):
            self.check_hidden_size(hidden[k], expected[k], f"Expected hidden[{k}] size {{}}, got {{}}")

    def permute_hidden(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, hx: tuple[Tensor, Tensor], permutation: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(h, c) with their rows in another order; torch.nn.LSTM's."""
        if permutation is None:
            return hx
        return hx[0].index_select(1, permutation), hx[1].index_select(1, permutation)

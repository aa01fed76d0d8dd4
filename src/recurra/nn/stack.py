"""One call of a layer module: checks as torch's, then layer after layer, direction beside direction, each one scan."""

import contextlib
import reprlib
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from recurra.cells import CELLS, Cell
from recurra.errors import DataError, StateError, UnsupportedError
from recurra.kernels import masks
from recurra.kernels.request import Request
from recurra.kernels.scan import check_ragged, check_sizes, saved_steps
from recurra.kernels.scan import run as run_scan

State = tuple[Tensor, ...]
NAMES = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn_tanh", "RNN_RELU": "rnn_relu"}


def run_layers(layer: Any, input: Any, hx: State | None, lengths: Any, reset: Tensor | None, states: bool) -> Any:
    """(output, final state[, every state]) of a `recurra.nn` module; see `recurra.nn.LSTM.forward`."""
    if isinstance(input, PackedSequence):
        return _packed(layer, input, hx, lengths, reset, states)
    if not isinstance(input, Tensor) or input.is_nested or input.layout != torch.strided:
        if isinstance(input, torch.fx.Proxy):
            raise UnsupportedError(
                "torch.fx can't trace into recurra's layers: use torch.export or torch.compile, a Tracer whose "
                "is_leaf_module holds for them, or recurra.nn.convert(model, back=True) before it"
            )
        kind = type(input).__name__ if not isinstance(input, Tensor) else "nested" if input.is_nested else input.layout
        raise DataError(f"input must be a dense tensor (padded, with lengths=) or a PackedSequence, not {kind}")
    if input.dim() not in (2, 3):
        what = "2D or 3D, got {}D tensor instead" if layer.mode.startswith("RNN") else "2D or 3D, got {}D instead"
        raise ValueError(f"{layer.mode.split('_')[0]}: Expected input to be {what.format(input.dim())}")
    batched, batch_first = input.dim() == 3, layer.batch_first
    state = _given_state(layer, hx, batched)
    if not batched:
        input = input.unsqueeze(0 if batch_first else 1)
    x = input.transpose(0, 1) if batch_first else input
    state = _checked(layer, input, x, state, x.shape[1], None)
    if lengths is not None:
        lengths = _tensor("lengths", lengths, f"[{x.shape[1]}] whole numbers", x.device)
        lengths = lengths if batched or lengths.dim() else lengths.unsqueeze(0)
    if reset is not None:
        reset = _tensor("reset", reset, f"[{x.shape[1]}, {x.shape[0]}] of True and False", x.device)
        reset = reset if batched or reset.dim() != 1 else reset.unsqueeze(0)
    check_ragged(x.shape[0], x.shape[1], lengths, reset)
    output, final, every = _run(layer, x, state, lengths, reset, None, states)
    if batch_first:
        output = output.transpose(0, 1)
        every = tuple(type(s)(*(part.transpose(0, 1) for part in s)) for s in every)
    if not batched:
        output, final = output.squeeze(0 if batch_first else 1), tuple(part.squeeze(1) for part in final)
        every = tuple(type(s)(*(part.squeeze(0 if batch_first else 1) for part in s)) for s in every)
    return (output, final, every) if states else (output, final)


def _tensor(name: str, value: Any, want: str, device: torch.device) -> Tensor:
    none = isinstance(value, list | tuple) and not value  # torch takes no numbers for floats
    try:
        return torch.as_tensor(value, dtype=torch.int64 if none else None).to(device)
    except (TypeError, ValueError, RuntimeError):
        found = f"a tensor on {value.device}" if isinstance(value, Tensor) else " ".join(reprlib.repr(value).split())
        raise DataError(f"{name} must be {want}, not {found}") from None


def _packed(layer: Any, input: PackedSequence, hx: State | None, lengths: Any, reset: Any, states: bool) -> Any:
    for name, given in (("lengths", lengths is not None), ("reset", reset is not None), ("states", states)):
        if given:
            raise DataError(
                f"{name}= is for a padded batch, not for a PackedSequence: pass the padded tensor and lengths="
            )
    x, sizes, order, back = input
    check_sizes(sizes)
    state = None if hx is None else _given_state(layer, hx, True)
    if state is not None and order is not None:
        # the caller's order is the one before sorting; a wrong number of rows is said before they are taken
        _checked(layer, x, x, state, int(sizes[0]), sizes)
        state = tuple(part.index_select(1, order) for part in state)
    state = _checked(layer, x, x, state, int(sizes[0]), sizes)
    output, final, _ = _run(layer, x, state, None, None, sizes, False)
    if back is not None:
        final = tuple(part.index_select(1, back) for part in final)
    return PackedSequence(output, sizes, order, back), final


def _given_state(layer: Any, hx: State | None, batched: bool) -> State | None:
    """hx as a tuple of [L * D, B, H], or torch's error for another number of dimensions."""
    if hx is None:
        return None
    lstm = layer.mode == "LSTM"
    parts = tuple(hx) if isinstance(hx, tuple | list | Tensor) else (hx,)
    if len(parts) != 1 + lstm or not all(isinstance(part, Tensor) for part in parts):
        kinds = [type(part).__name__ for part in parts]
        want = "(h_0, c_0), two tensors" if lstm else "h_0, one tensor"
        got = kinds[0] if len(kinds) == 1 else f"({', '.join(kinds)})"
        raise StateError(f"hx of {layer.mode.split('_')[0]} is {want}, not {got}")
    h, *others = parts
    want = 3 if batched else 2
    if h.dim() != want or (lstm and others[0].dim() != want):
        kind = "batched 3-D" if batched else "unbatched 2-D"
        if lstm:
            got = f"({h.dim()}-D, {others[0].dim()}-D) tensors"
            raise RuntimeError(f"For {kind} input, hx and cx should also be {want}-D but got {got}")
        raise RuntimeError(f"For {kind} input, hx should also be {want}-D but got {h.dim()}-D tensor")
    return (h, *others) if batched else tuple(part.unsqueeze(1) for part in (h, *others))


def _checked(layer: Any, input: Tensor, x: Tensor, state: State | None, rows: int, sizes: Tensor | None) -> State:
    """The state, zeros where none is given; torch's errors for what doesn't fit. `input` is x as the caller laid it out."""
    weight = layer.weight_ih_l0
    parts = layer.num_layers * (2 if layer.bidirectional else 1)
    width = layer.proj_size or layer.hidden_size
    shapes = ((parts, rows, width), (parts, rows, layer.hidden_size))[: 2 if layer.mode == "LSTM" else 1]
    mixed = _is_mixed(x)
    given = state is not None
    if not given:
        state = tuple(x.new_zeros(shape) for shape in shapes)
    fits = x.dim() == (3 if sizes is None else 2) and x.shape[-1] == layer.input_size
    fits = fits and (mixed or x.dtype == weight.dtype)
    if not fits or (given and any(part.shape != shape for part, shape in zip(state, shapes, strict=True))):
        layer._update_flat_weights()
        layer.check_forward_args(input, state if layer.mode == "LSTM" else state[0], sizes)
    if x.shape[0] == 0:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    if x.device != weight.device:
        found = f"input tensor at {x.device} and parameter tensor at {weight.device}"
        raise RuntimeError(f"Input and parameter tensors are not at the same device, found {found}")
    for part in state if given else ():
        if part.device != x.device:
            found = f"input tensor at {x.device} and hidden tensor at {part.device}"
            raise RuntimeError(f"Input and hidden tensors are not at the same device, found {found}")
        if part.dtype != x.dtype and not mixed:
            found = f"input tensor with {x.dtype} and hidden tensor with {part.dtype}"
            raise RuntimeError(f"Input and hidden tensors are not the same dtype, found {found}")
    return state


def _is_mixed(x: Tensor) -> bool:
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)


def _autocast(layer: Any, x: Tensor, state: State) -> torch.dtype | None:
    """The type that autocast asks for, or None. As torch's ops: float64 stays; a GRU on a CPU keeps the wider of the two."""
    if not _is_mixed(x) or torch.float64 in (x.dtype, layer.weight_ih_l0.dtype):
        return None
    kind = x.device.type
    low = torch.get_autocast_dtype(kind)
    return torch.promote_types(low, state[0].dtype) if layer.mode == "GRU" and kind == "cpu" else low


def _run(
    layer: Any,
    x: Tensor,
    state: State,
    lengths: Tensor | None,
    reset: Tensor | None,
    sizes: Tensor | None,
    states: bool,
) -> tuple[Tensor, State, tuple[Any, ...]]:
    """Output, final state and each layer's states, for x time first or packed."""
    dtype = _autocast(layer, x, state)
    unmixed: Any = contextlib.nullcontext()
    if dtype is not None:
        x, state = x.to(dtype), tuple(part.to(dtype) for part in state)
        unmixed = torch.autocast(x.device.type, enabled=False)
    directions = 2 if layer.bidirectional else 1
    training = layer.training
    between = layer.dropout if training and layer.num_layers > 1 else 0.0
    rates = between or layer.recurrent_dropout or layer.weight_drop or layer.zoneout_h or layer.zoneout_c
    seed = masks.new_seed() if training and rates else None
    checkpoint = saved_steps(layer.checkpoint)
    last: list[State] = []
    every: list[Any] = []
    with unmixed:
        for k in range(layer.num_layers):
            runs: list[Any] = []
            for direction in range(directions):
                at = k * directions + direction
                cell = _cell(layer, f"l{k}_reverse" if direction else f"l{k}", 8 * at, seed, dtype)
                request = Request(
                    cell,
                    x,
                    cell.State(*(part[at] for part in state)),
                    lengths,
                    reset,
                    states,
                    False,
                    sizes,
                    direction == 1,
                    layer.recurrent_dropout,
                    layer.zoneout_h,
                    layer.zoneout_c,
                    training,
                    seed,
                    8 * at,
                    checkpoint,
                )
                runs.append(run_scan(request, layer.kernel))
                last.append(runs[-1].state)
            x = runs[0].outputs if directions == 1 else torch.cat([run.outputs for run in runs], -1)
            if states:
                every.append(type(last[-1])(*(_beside(parts) for parts in zip(*(r.states for r in runs), strict=True))))
            if between and seed is not None and k + 1 < layer.num_layers:
                x = masks.dropout(x, between, seed, 8 * k * directions + masks.OUTPUT)
    return x, tuple(torch.stack(parts) for parts in zip(*last, strict=True)), tuple(every)


def _beside(parts: tuple[Tensor, ...]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def _cell(layer: Any, suffix: str, stream: int, seed: Tensor | None, dtype: torch.dtype | None) -> Cell:
    """The weights of one layer and direction as a cell. Read by name each time, so tied and parametrised weights work."""
    weight_ih, weight_hh = getattr(layer, f"weight_ih_{suffix}"), getattr(layer, f"weight_hh_{suffix}")
    if layer.bias:
        weights = [weight_ih, weight_hh, getattr(layer, f"bias_ih_{suffix}"), getattr(layer, f"bias_hh_{suffix}")]
    else:
        none = weight_ih.new_zeros(weight_ih.shape[0])
        weights = [weight_ih, weight_hh, none, none]
    if layer.weight_drop and seed is not None:
        weights[1] = masks.dropout(weight_hh, layer.weight_drop, seed, stream + masks.WEIGHT)
    further: dict[str, Tensor] = {}
    if layer.proj_size:
        further["weight_hr"] = getattr(layer, f"weight_hr_{suffix}")
    if layer.peepholes:
        further["peephole"] = getattr(layer, f"weight_peephole_{suffix}")
    if layer.layer_norm:
        names = ("gain_ih", "gain_hh", "gain_c", "bias_c") if layer.mode == "LSTM" else ("gain_ih", "gain_hh")
        further |= {name: getattr(layer, f"{name}_{suffix}") for name in names}
    if layer.coupled:
        weights = [_uncoupled(weight) for weight in weights]
        if layer.peepholes:
            i, o = further["peephole"].chunk(2)
            further["peephole"] = torch.cat([i, -i, o])
    if dtype is not None:
        weights = [weight.to(dtype) for weight in weights]
        further = {name: weight.to(dtype) for name, weight in further.items()}
    return CELLS[NAMES[layer.mode]](*weights, **further)


def _uncoupled(weight: Tensor) -> Tensor:
    """Rows i g o -> i f g o with f = 1 - i: since 1 - σ(a) = σ(-a), the rows of f are those of -i."""
    i, g, o = weight.chunk(3)
    return torch.cat([i, -i, g, o])

"""The one door: a cell over time, by the fastest kernel that covers the request."""

import functools
import warnings
from typing import Any

import torch
from torch import Tensor

from recurra.cells import Cell
from recurra.errors import DataError, RecipeError, StateError, UnsupportedError
from recurra.kernels import aten, differentiable, loop
from recurra.kernels.request import Request, Scan
from recurra.kernels.tracing import jit_traced, traced, transformed

KERNELS = {"cpu": differentiable, "aten": aten, "loop": loop}
"""Fastest first: see docs/benchmarks.md. `cpu` is csrc/, `aten` torch's own ops, for GPUs and half precision."""

_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def scan(
    cell: Cell,
    x: Tensor,
    state: Any,
    *,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    states: bool = False,
    trace: bool = False,
    batch_sizes: Tensor | None = None,
    reverse: bool = False,
    recurrent_dropout: float = 0.0,
    zoneout_h: float = 0.0,
    zoneout_c: float = 0.0,
    training: bool = False,
    seed: Tensor | None = None,
    stream: int = 0,
    checkpoint: str = "none",
    kernel: str = "auto",
) -> Scan:
    """Run `cell` over x [T, B, I] (time first) from `state` (the cell's State: h [B, P], c [B, H]).

    `lengths` [B] int64, 0 <= length <= T: steps from there on give 0 and leave the state alone, whatever x holds there.
    `reset` [B, T] bool: zeroes the state BEFORE step t. `states`: also every state, differentiable. `trace`: also the gates by name.
    `batch_sizes` [T]: x is packed, [N, I], as a PackedSequence has it. `reverse`: from each row's last valid step to its first.
    `recurrent_dropout`, `zoneout_h` and `zoneout_c` are probabilities, `training` says how they act (see kernels/loop.py), `seed`
    (int64 scalar, see kernels/masks.py) and `stream` decide their masks. `checkpoint`: "none", "gates" or "every 16", what backward
    computes again to save memory, in the kernel `cpu`. `kernel`: "auto", or a name in KERNELS; UnsupportedError says which can where
    that one can't.

    Raises DataError for a wrong x, lengths or reset, StateError for a wrong state, RecipeError for a wrong option.
    """
    request = Request(
        cell,
        x,
        checked_state(cell, x, state, batch_sizes),
        lengths,
        reset,
        states,
        trace,
        batch_sizes,
        reverse,
        recurrent_dropout,
        zoneout_h,
        zoneout_c,
        training,
        seed,
        stream,
        saved_steps(checkpoint),
    )
    _check_options(request)
    _check_time(request)
    return run(request, kernel)


def run(request: Request, kernel: str = "auto") -> Scan:
    """A request that is known to be right, by the named kernel or the fastest."""
    name, why = choose(request, kernel)
    if name != "cpu" and not torch.compiler.is_compiling():
        _say(request, kernel, name, why)
    return KERNELS[name].run(request)._replace(why=why)


def choose(request: Request, kernel: str = "auto") -> tuple[str, str]:
    """The kernel for a request, and why in a sentence."""
    if kernel != "auto":
        check_kernel(kernel)
        reason = KERNELS[kernel].refuses(request)
        if reason:
            able = [name for name, module in KERNELS.items() if not module.refuses(request)]
            raise UnsupportedError(f"kernel '{kernel}' can't run this: {reason}; kernel= {', '.join(able)} or auto can")
        return kernel, f"'{kernel}' was asked for"
    refusals: list[str] = []
    for name, module in KERNELS.items():
        reason = module.refuses(request)
        if not reason:
            if name == "loop" and jit_traced():
                raise UnsupportedError(
                    "torch.jit.trace would keep the loop's number of steps: use torch.export or torch.compile, "
                    "recurra.nn.convert(model, back=True) before it, or kernel='loop' where that number stays"
                )
            plain = "a plain loop runs, several times slower than a kernel"
            return name, f"{plain if name == 'loop' else 'the fastest that covers the request'}{''.join(refusals)}"
        refusals.append(f"; not '{name}': {reason}")
    raise AssertionError("the loop covers everything")


def _say(request: Request, kernel: str, name: str, why: str) -> None:
    """What the caller may not expect of a kernel other than `cpu`."""
    if name == "loop" and kernel == "auto" and not request.trace and not request.x.is_meta:
        _say_once(f"{why}; kernel='loop' takes it without this message")
    if request.checkpoint >= 0 and torch.is_grad_enabled() and any(part.requires_grad for part in request.tensors):
        _say_once(f"checkpoint= does nothing in the kernel '{name}', which runs; torch.utils.checkpoint works with any")


@functools.cache
def _say_once(text: str) -> None:
    warnings.warn(text, stacklevel=9)  # the call of the layer


def check_kernel(kernel: str) -> None:
    """RecipeError for what is neither "auto" nor a name in KERNELS."""
    if not isinstance(kernel, str) or kernel not in (*KERNELS, "auto"):
        raise RecipeError(f"kernel {kernel!r} is unknown; known: auto, cpu, aten (torch's own: cuDNN on a GPU), loop")


def saved_steps(checkpoint: str) -> int:
    """The number in Request.checkpoint for the word: "none" -> -1, "gates" -> 0, "every 16" -> 16; RecipeError for others."""
    if checkpoint in ("none", "gates"):
        return -1 if checkpoint == "none" else 0
    word, _, steps = str(checkpoint).partition(" ")
    if word == "every" and steps.isdecimal() and int(steps) >= 1:
        return int(steps)
    raise RecipeError(f"checkpoint must be 'none', 'gates' or 'every k' with k >= 1, not {checkpoint!r}")


def probability(name: str, value: float) -> float:
    """The value of an option, or RecipeError where it is none between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise RecipeError(f"{name} must be a probability between 0 and 1, not {value!r}")
    return float(value)


def checked_state(cell: Cell, x: Tensor, state: Any, batch_sizes: Tensor | None) -> Any:
    """The state as the cell's State; DataError for the shape of x, StateError for the state's."""
    shape = "[N, {}]" if batch_sizes is not None else "[T, B, {}]"
    if x.dim() != (3 if batch_sizes is None else 2) or x.shape[-1] != cell.weight_ih.shape[1]:
        raise DataError(f"x must be {shape.format(cell.weight_ih.shape[1])}, not {list(x.shape)}")
    if batch_sizes is not None:
        check_sizes(batch_sizes)
    fields = cell.State._fields
    if not isinstance(state, tuple) or len(state) != len(fields):
        raise StateError(f"the state of '{cell.name}' is ({', '.join(fields)}), not {type(state).__name__}")
    rows = x.shape[1] if batch_sizes is None else int(batch_sizes[0]) if len(batch_sizes) else 0
    hidden = cell.weight_ih.shape[0] // len(cell.gates)
    for name, part, width in zip(fields, state, (cell.weight_hh.shape[1], hidden), strict=False):
        if tuple(part.shape) != (rows, width):
            raise StateError(f"state {name} must be {[rows, width]}, not {list(part.shape)}")
    for name, part in zip(fields, state, strict=True):
        if part.dtype != x.dtype:
            raise StateError(f"state {name} must be {x.dtype} as x, not {part.dtype}")
    return cell.State(*state)


def _check_options(request: Request) -> None:
    rates = [probability(name, getattr(request, name)) for name in ("recurrent_dropout", "zoneout_h", "zoneout_c")]
    if request.zoneout_c and len(request.state) < 2:
        raise RecipeError(f"zoneout_c is for a cell with a c, not for '{request.cell.name}'; use zoneout_h")
    seed = request.seed
    if request.training and any(rates) and seed is None:
        raise RecipeError("dropout and zoneout draw their masks from seed=, an int64 scalar; none was given")
    if seed is not None and (not isinstance(seed, Tensor) or seed.dim() or seed.dtype != torch.int64):
        raise RecipeError(f"seed must be an int64 scalar, torch.tensor(1) say, not {_kind(seed)}")


def _check_time(request: Request) -> None:
    x = request.x
    if x.shape[0] == 0:
        raise DataError("x must have at least 1 step, not 0")
    if request.batch_sizes is not None:
        if request.lengths is not None or request.reset is not None:
            name = "reset" if request.lengths is None else "lengths"
            raise DataError(f"a packed x has no {name}: pass x padded, [T, B, I], with lengths and reset")
        if int(request.batch_sizes.sum()) != x.shape[0]:
            raise DataError(
                f"batch_sizes must sum to the {x.shape[0]} frames of x, not {int(request.batch_sizes.sum())}"
            )
        return
    check_ragged(x.shape[0], x.shape[1], request.lengths, request.reset)


def check_sizes(sizes: Tensor) -> None:
    """DataError for batch_sizes of the wrong shape, type or device. Their values are checked where they are used."""
    if not isinstance(sizes, Tensor) or sizes.dim() != 1 or sizes.dtype not in _WHOLE or sizes.device.type != "cpu":
        raise DataError(f"batch_sizes must be [T] whole numbers (int64) on the CPU, not {_kind(sizes)}")


def _kind(value: Any) -> str:
    return f"{list(value.shape)} {value.dtype} on {value.device}" if isinstance(value, Tensor) else repr(value)


def check_ragged(steps: int, rows: int, lengths: Tensor | None, reset: Tensor | None) -> None:
    """DataError for lengths or reset of the wrong shape, type or value, for T = steps and B = rows.

    Values are read only where that costs no wait for a device, and not while a graph is traced or a function mapped.
    """
    if lengths is not None:
        if tuple(lengths.shape) != (rows,) or lengths.dtype not in _WHOLE:
            raise DataError(
                f"lengths must be [{rows}] whole numbers (int64), not {list(lengths.shape)} {lengths.dtype}"
            )
        hidden = traced(lengths) or transformed()
        if rows and lengths.device.type == "cpu" and not hidden:
            low, high = (int(end) for end in lengths.aminmax())
            if low < 0 or high > steps:
                raise DataError(f"lengths must be between 0 and {steps}, not {low} to {high}")
    if reset is not None and (tuple(reset.shape) != (rows, steps) or reset.dtype not in (torch.bool, *_WHOLE)):
        want = f"[{rows}, {steps}] (batch first) of True and False"
        raise DataError(f"reset must be {want}, not {list(reset.shape)} {reset.dtype}")

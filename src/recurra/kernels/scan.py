"""The one door: a cell over time, by the fastest kernel that covers the request."""

from typing import Any

from torch import Tensor

from recurra.cells import Cell
from recurra.errors import DataError, StateError, UnsupportedError, nearest
from recurra.kernels import aten, cpu, loop
from recurra.kernels.request import Request, Scan

# Fastest first. Measured on two cores of an EPYC with AVX-512, float32, one thread, torch 2.13 (T x B x I x H), aten's time over cpu's:
#   50 x 1 x 32 x 64      lstm forward 1.5, training 1.2     gru 7.5, 10.8     rnn 4.8, 5.8
#   100 x 32 x 64 x 128   lstm forward 0.97, training 1.17   gru 1.7, 1.8      rnn 2.0, 1.9
#   30 x 32 x 512 x 512   lstm forward 0.86, training 0.99   gru 1.1, 0.9      rnn 1.2, 1.2
# so `cpu` loses a little only where oneDNN's large products count; `aten` is for GPUs and half precision.
KERNELS = {"cpu": cpu, "aten": aten, "loop": loop}


def scan(
    cell: Cell,
    x: Tensor,
    state: Any,
    *,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    states: bool = False,
    trace: bool = False,
    kernel: str = "auto",
) -> Scan:
    """Run `cell` over x [T, B, I] (time first) from `state` (the cell's State, each [B, H]).

    `lengths` [B] int64, 0 <= length <= T: steps from there on give 0 and leave the state alone, whatever x holds there.
    `reset` [B, T] bool: zeroes the state BEFORE step t. `states`: also every state, differentiable. `trace`: also the gates by name.
    `kernel`: "auto", or a name in KERNELS; UnsupportedError says which can where that one can't.

    Raises DataError for a wrong x, lengths or reset, StateError for a wrong state.
    """
    request = Request(cell, x, _checked_state(cell, x, state), lengths, reset, states, trace)
    _check(request)
    name, why = choose(request, kernel)
    return KERNELS[name].run(request)._replace(why=why)


def choose(request: Request, kernel: str = "auto") -> tuple[str, str]:
    """The kernel for a request, and why in a sentence."""
    if kernel != "auto":
        if kernel not in KERNELS:
            raise UnsupportedError(f"kernel '{kernel}' is unknown; {nearest(kernel, [*KERNELS, 'auto'])}")
        reason = KERNELS[kernel].refuses(request)
        if reason:
            able = [name for name, module in KERNELS.items() if not module.refuses(request)]
            raise UnsupportedError(f"kernel '{kernel}' can't run this: {reason}; kernel= {', '.join(able)} or auto can")
        return kernel, f"'{kernel}' was asked for"
    refusals: list[str] = []
    for name, module in KERNELS.items():
        reason = module.refuses(request)
        if not reason:
            return name, f"the fastest that covers the request{''.join(refusals)}"
        refusals.append(f"; not '{name}': {reason}")
    raise AssertionError("the loop covers everything")


def _checked_state(cell: Cell, x: Tensor, state: Any) -> Any:
    if x.dim() != 3 or x.shape[2] != cell.weight_ih.shape[1]:
        raise DataError(f"x must be [T, B, {cell.weight_ih.shape[1]}], not {list(x.shape)}")
    fields = cell.State._fields
    want = (x.shape[1], cell.weight_hh.shape[1])
    if not isinstance(state, tuple) or len(state) != len(fields):
        raise StateError(f"the state of '{cell.name}' is ({', '.join(fields)}), not {type(state).__name__}")
    for name, part in zip(fields, state, strict=True):
        if tuple(part.shape) != want:
            raise StateError(f"state {name} must be {list(want)}, not {list(part.shape)}")
    return cell.State(*state)


def _check(request: Request) -> None:
    steps, rows, _ = request.x.shape
    if steps == 0:
        raise DataError("x must have at least 1 step, not 0")
    lengths, reset = request.lengths, request.reset
    if lengths is not None:
        if tuple(lengths.shape) != (rows,) or lengths.is_floating_point():
            raise DataError(f"lengths must be [{rows}] whole numbers, not {list(lengths.shape)} {lengths.dtype}")
        if rows and (int(lengths.min()) < 0 or int(lengths.max()) > steps):
            raise DataError(f"lengths must be between 0 and {steps}, not {int(lengths.min())} to {int(lengths.max())}")
    if reset is not None and tuple(reset.shape) != (rows, steps):
        raise DataError(f"reset must be [{rows}, {steps}] (batch first), not {list(reset.shape)}")

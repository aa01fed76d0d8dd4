"""recurra's own C++ kernels for the CPU (csrc/): every option at full speed, forward and backward. No autograd here."""

import ctypes
import sys
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recurra.errors import DataError
from recurra.kernels.request import WEIGHTS, Request

try:
    from recurra import _core as _built
except ImportError:
    _built = None

_core: Any = _built
NAME = "cpu"
CELLS = ("rnn_tanh", "rnn_relu", "lstm", "gru")
MANY_NUMBERS = 1 << 16  # of those the memory is worth being used again
FEW_STEPS = 192  # frames of a segment that checkpoint="gates" computes again at once


def refuses(request: Request) -> str | None:
    """Why it can't, or None."""
    if _core is None:
        return "recurra._core was not built: reinstall with a C++20 compiler"
    if request.cell.name not in CELLS:
        return f"it has no code for the cell '{request.cell.name}'"
    if request.trace:
        return "it does not give the gates (trace=True)"
    dtype = request.x.dtype
    for tensor in request.tensors:
        if tensor.device.type != "cpu":
            return f"it runs on the CPU, not on {tensor.device}"
        if tensor.dtype != dtype or dtype not in (torch.float32, torch.float64):
            kinds = dtype if tensor.dtype == dtype else f"{dtype} with {tensor.dtype}"
            return f"it takes float32 or float64 throughout, not {kinds}"
    return None


class Ran(NamedTuple):
    """What a forward pass gave. P: the width of h."""

    outputs: Tensor
    """[T, B, P] or, packed, [N, P]"""
    state: tuple[Tensor, ...]
    """h [B, P] and, of an LSTM, c [B, H]"""
    cells: Tensor | None
    """Every c, as outputs; where asked for"""
    saved: Tensor | None
    """What the backward pass needs, flat; where kept"""


def forward(request: Request, keep: bool) -> Ran:
    """Run it; `keep` what `backward` needs."""
    call, run = _call(request), _arrays(request)
    x, h0 = run["x"], run["h0"]
    lstm = request.cell.name == "lstm"
    hidden, outputs = _widths(request)
    frames = x.shape[:-1]
    fresh = x.new_zeros if request.lengths is not None else x.new_empty  # the padding's are 0
    y = fresh(*frames, outputs)
    cells = fresh(*frames, hidden) if lstm and request.states else None
    hn = h0.new_empty(h0.shape)
    cn = run["c0"].new_empty(run["c0"].shape) if lstm else None
    saved = _saved(call, x) if keep else None
    call.forward(
        *_addresses(x, run["reset"], h0, run["c0"], y, cells, hn, cn, run["h_mask"], saved),
        *_addresses(*run["weights"]),
    )
    return Ran(y, (hn,) if cn is None else (hn, cn), cells, saved)


def backward(
    request: Request,
    outputs: Tensor,
    saved: Tensor,
    d_outputs: Tensor | None,
    d_state: tuple[Tensor | None, ...],
    d_cells: Tensor | None,
    wanted: frozenset[str],
) -> dict[str, Tensor]:
    """Gradients by name (x, h, c and the weights, of which those in `wanted`), from those of what `forward` gave; None is zero.

    `outputs` and `saved` are the Ran's. An empty one is missing (changed since; exported without gradients): forward runs again.
    """
    lacks_saved = request.checkpoint < 0 and not saved.numel()
    if lacks_saved or not outputs.numel():
        again = forward(request, lacks_saved)
        outputs, saved = again.outputs, saved if again.saved is None else again.saved
    call, run = _call(request), _arrays(request)
    x, h0 = run["x"], run["h0"]
    if outputs.shape[:-1] != x.shape[:-1] or not (outputs.untyped_storage().nbytes() or not outputs.numel()):
        raise DataError("x or the output was replaced, or its memory freed, between forward and backward: keep both")
    lstm = request.cell.name == "lstm"
    given: dict[str, Tensor] = {"h": torch.empty_like(h0)}
    if lstm:
        given["c"] = torch.empty_like(run["c0"])
    if "x" in wanted:
        given["x"] = torch.zeros_like(x) if request.lengths is not None else torch.empty_like(x)
    for name, weight in zip(WEIGHTS, run["weights"], strict=True):
        if weight is not None and name in wanted:
            given[name] = torch.zeros_like(weight)
    incoming = [
        None if d is None else d.contiguous() for d in (d_outputs, d_cells, *d_state, *([] if lstm else [None]))
    ]
    y = outputs.contiguous()  # every tensor has a name, so that none is gone before its address is used
    call.backward(
        *_addresses(x, run["reset"], h0, run["c0"], y, run["h_mask"], saved),
        *_addresses(*run["weights"]),
        *_addresses(*incoming),
        *_addresses(given.get("x"), given["h"], given.get("c")),
        *_addresses(*(given.get(name) for name in WEIGHTS)),
    )
    return {name: gradient for name, gradient in given.items() if name in wanted}


def _widths(request: Request) -> tuple[int, int]:
    """H and P."""
    weight = request.cell.weight_hh
    return weight.shape[0] // len(request.cell.gates), weight.shape[1]


def _check(request: Request) -> None:
    """Raises DataError where a tensor is smaller or larger than what csrc/ reads: it sees addresses alone."""
    cell, x = request.cell, request.x
    hidden, outputs = _widths(request)
    sums = len(cell.gates) * hidden
    wanted = {
        "weight_ih": (sums, x.shape[-1]),
        "weight_hh": (sums, outputs),
        "bias_ih": (sums,),
        "bias_hh": (sums,),
        "weight_hr": (outputs, hidden),
        "peephole": (3 * hidden,),
        "gain_ih": (sums,),
        "gain_hh": (sums,),
        "gain_c": (hidden,),
        "bias_c": (hidden,),
    }
    for name in WEIGHTS:
        weight = getattr(cell, name, None)
        if weight is not None and weight.shape != wanted[name]:
            what = f"{name} of this {cell.name} (H = {hidden}, h {outputs} wide)"
            raise DataError(f"{what} must have shape {list(wanted[name])}, not {list(weight.shape)}: replace it")
    if outputs != hidden and getattr(cell, "weight_hr", None) is None:
        raise DataError(
            f"weight_hh of this {cell.name} must have shape {[sums, hidden]}, not {[sums, outputs]}: replace it"
        )
    for name, part, width in zip(("h", "c"), request.state, (outputs, hidden), strict=False):
        if part.shape != (request.rows, width):
            raise DataError(f"{name} must have shape {[request.rows, width]}, not {list(part.shape)}")
    if not x.untyped_storage().nbytes() and x.numel():
        raise DataError("the memory of x was freed: keep it until backward")


def _call(request: Request) -> Any:
    _check(request)
    cell, x = request.cell, request.x
    hidden, outputs = _widths(request)
    sizes = None if request.batch_sizes is None else _checked_sizes(request.batch_sizes, x)
    rows = request.rows
    steps = x.shape[0] if sizes is None else len(sizes)
    lengths = _lengths(request)
    call = _core.Call(
        cell.name,
        x.shape[-1],
        hidden,
        outputs,
        getattr(cell, "weight_hr", None) is not None,
        getattr(cell, "peephole", None) is not None,
        getattr(cell, "gain_hh", None) is not None,
        rows,
        steps,
        0 if lengths is None else lengths.data_ptr(),
        torch.get_num_threads(),
        x.dtype == torch.float64,
    )
    call.frames_row = 1
    call.frames_step = rows
    if sizes is not None:
        call.batch_sizes(sizes.data_ptr())
    call.reverse = request.reverse
    if request.checkpoint >= 0:
        call.every = min(request.checkpoint or max(4, FEW_STEPS // max(rows, 1)), max(steps, 1))
    if request.zoneout_h or request.zoneout_c:
        seed = 0 if request.seed is None else int(request.seed)
        call.zoneout(request.zoneout_h, request.zoneout_c, request.training, seed, request.stream)
    return call


def _checked_sizes(sizes: Tensor, x: Tensor) -> Tensor:
    sizes = sizes.to("cpu", torch.int64).contiguous()
    falling = sizes.dim() == 1 and bool((sizes[1:] <= sizes[:-1]).all()) and (not len(sizes) or int(sizes[-1]) > 0)
    if not falling or int(sizes.sum()) != x.shape[0]:
        raise DataError(
            f"batch_sizes must fall, be at least 1 and sum to the {x.shape[0]} frames, not {sizes.tolist()[:8]}"
        )
    return sizes


def _lengths(request: Request) -> Tensor | None:
    if request.batch_sizes is not None:
        rows = torch.arange(request.rows)
        return (request.batch_sizes[:, None] > rows).sum(0)
    if request.lengths is None:
        return None
    return request.lengths.to("cpu", torch.int64).contiguous()


def _arrays(request: Request) -> dict[str, Any]:
    cell = request.cell
    mask = None
    if request.recurrent_dropout and request.training:
        assert request.seed is not None
        mask = torch.ones_like(request.state[0])
        where, number = mask.data_ptr(), int(request.seed)
        p, stream = request.recurrent_dropout, request.stream + 1
        _core.mask_apply(where, where, 1, *mask.shape, p, number, stream, mask.dtype == torch.float64)
    weights = [_plain(getattr(cell, name, None)) for name in WEIGHTS]
    return {
        "x": _plain(request.x),
        "reset": None if request.reset is None else request.reset.to("cpu", torch.bool).contiguous(),
        "h0": _plain(request.state[0]),
        "c0": _plain(request.state[1]) if cell.name == "lstm" else None,
        "h_mask": mask,
        "weights": weights,
    }


def _saved(call: Any, x: Tensor) -> Tensor:
    numbers = call.saved()
    if numbers < MANY_NUMBERS:
        return x.new_empty(numbers)
    return _core.saved_memory(numbers, x.dtype == torch.float64)


def release_memory() -> None:
    """Give the system back the memory that waits for the next training step: 512 MB at most, which otherwise stay with the process."""
    if _core is not None:
        _core.release_saved_memory()


def _plain(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().resolve_neg().contiguous()


def _addresses(*tensors: Tensor | None) -> list[int]:
    return [0 if tensor is None else tensor.data_ptr() for tensor in tensors]


def _share_threads() -> None:
    """Let the core work on torch's own pool of threads, so that no two pools fight for the cores."""
    if _core is None or not sys.platform.startswith("linux"):
        return
    try:
        with open("/proc/self/maps") as maps:
            paths = {line.split(maxsplit=5)[-1].rstrip("\n") for line in maps if "libgomp" in line}
        ours = [path for path in paths if "/torch/" in path] or list(paths)
        if len(ours) == 1:
            pool = ctypes.CDLL(ours[0])
            names = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
            _core.use_host_pool(*(ctypes.cast(getattr(pool, name), ctypes.c_void_p).value for name in names))
    except (OSError, AttributeError):
        return  # the core starts threads of its own, for calls that are worth it


_share_threads()

"""STAND-IN until csrc/ is there: the signatures of the C++ kernel, answered by the loop."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from recurra.kernels.request import Request

try:
    from recurra import _core as _built
except ImportError:
    _built = None

_core: Any = _built
CELLS = ("rnn_tanh", "rnn_relu", "lstm", "gru")


class Ran(NamedTuple):
    """What a forward pass gives and what backward needs of it."""

    outputs: Tensor
    state: tuple[Tensor, ...]
    cells: Tensor | None
    saved: Tensor | None


def refuses(request: Request) -> str | None:
    """Why it can't, or None."""
    if _core is None:
        return "recurra._core was not built: reinstall with a C++20 compiler"
    if request.cell.name not in CELLS:
        return f"it has no code for the cell '{request.cell.name}'"
    if request.trace:
        return "it does not give the gates (trace=True)"
    for tensor in request.tensors:
        if tensor.device.type != "cpu":
            return f"it runs on the CPU, not on {tensor.device}"
        if tensor.dtype not in (torch.float32, torch.float64) or tensor.dtype != request.x.dtype:
            return f"it takes float32 or float64 throughout, not {request.x.dtype} with {tensor.dtype}"
    return None


def forward(request: Request, keep: bool) -> Ran:
    """Outputs, final state and, where kept or asked for, every c."""
    from recurra.kernels import loop

    with torch.no_grad():
        scan = loop.run(replace(request, states=True))
    cells = scan.states[1] if len(request.state) > 1 and (keep or request.states) else None
    saved = request.x.new_zeros(request.x.shape[0] + 3) if keep else None
    return Ran(scan.outputs.clone(), tuple(p.clone() for p in scan.state), cells, saved)


def backward(*arguments: Any) -> dict[str, Tensor]:
    """In a thread, since inside a custom op torch records no graph."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_backward, *arguments).result()


def _backward(
    request: Request,
    ran: Ran,
    d_outputs: Tensor | None,
    d_state: tuple[Tensor | None, ...],
    d_cells: Tensor | None,
    wanted: frozenset[str],
) -> dict[str, Tensor]:
    """The wanted gradients by name."""
    from recurra.kernels import loop

    assert ran.saved is not None
    named = {name: tensor.detach().requires_grad_() for name, tensor in request.named.items()}
    state = type(request.state)(*(named[n] for n in request.state._fields))
    cell = replace(request.cell, **{n: t for n, t in named.items() if n not in ("x", "h", "c")})
    with torch.enable_grad():
        scan = loop.run(replace(request, cell=cell, x=named["x"], state=state, states=True))
        outs = [scan.outputs, *scan.state, *scan.states[1:]]
        grads = [d_outputs, *d_state, *([d_cells] if len(scan.state) > 1 else [])]
        pairs = [(o, g) for o, g in zip(outs, grads, strict=True) if g is not None]
        inputs = {n: named[n] for n in named if n in wanted}
        got = torch.autograd.grad([o for o, _ in pairs], list(inputs.values()), [g for _, g in pairs], allow_unused=True)
    return {n: torch.zeros_like(t) if g is None else g for (n, t), g in zip(inputs.items(), got, strict=True)}

"""recurra's own C++ kernels for the CPU (csrc/): lengths, resets and every state at full speed, forward and backward."""

from typing import Any

import torch
from torch import Tensor

from recurra.errors import UnsupportedError
from recurra.kernels.request import Request, Scan

try:
    from recurra import _core as _built
except ImportError:
    _built = None

_core: Any = _built  # untyped: its stub has one overload per dtype, a torch.Tensor has both
NAME = "cpu"
CELLS = ("rnn_tanh", "rnn_relu", "lstm", "gru")


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


def run(request: Request) -> Scan:
    """Forward, keeping what the backward pass needs where a gradient is wanted."""
    cell = request.cell
    h0 = request.state[0]
    c0 = request.state[1] if len(request.state) > 1 else None
    lengths = None if request.lengths is None else request.lengths.to("cpu", torch.int64).contiguous()
    reset = None if request.reset is None else request.reset.to("cpu", torch.bool).contiguous()
    weights = (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in request.tensors):
        y, cs, hn, cn = _Run.apply(cell.name, lengths, reset, request.x, h0, c0, *weights)
    else:
        y, cs, hn, cn, _ = _forward(
            cell.name, lengths, reset, request.x, h0, c0, *weights, keep=False, every_c=request.states
        )
    lstm = c0 is not None
    return Scan(
        outputs=y,
        state=cell.State(hn, cn) if lstm else cell.State(hn),
        states=None if not request.states else cell.State(y, cs) if lstm else cell.State(y),
        trace=None,
        kernel=NAME,
        why="",
    )


def _plain(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().contiguous()


def _forward(
    name: str,
    lengths: Tensor | None,
    reset: Tensor | None,
    x: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    *,
    keep: bool,
    every_c: bool,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor | None]:
    steps, rows, _ = x.shape
    hidden = w_hh.shape[1]
    y = x.new_empty(steps, rows, hidden)
    cs = x.new_empty(steps, rows, hidden) if c0 is not None and (keep or every_c) else None
    hn = x.new_empty(rows, hidden)
    cn = None if c0 is None else x.new_empty(rows, hidden)
    saved = x.new_empty(_core.saved_size(name, rows, steps, hidden, x.dtype == torch.float64)) if keep else None
    inputs: list[Any] = [_plain(tensor) for tensor in (x, h0, c0, w_ih, w_hh, b_ih, b_hh)]
    _core.forward(name, inputs[0], lengths, reset, *inputs[1:], y, cs, hn, cn, saved, torch.get_num_threads())
    return y, cs, hn, cn, saved


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        name: str,
        lengths: Tensor | None,
        reset: Tensor | None,
        x: Tensor,
        h0: Tensor,
        c0: Tensor | None,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor,
        b_hh: Tensor,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        y, cs, hn, cn, saved = _forward(
            name, lengths, reset, x, h0, c0, w_ih, w_hh, b_ih, b_hh, keep=True, every_c=True
        )
        ctx.name = name
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(lengths, reset, x, h0, c0, w_ih, w_hh, y, cs, saved)
        return y, cs, hn, cn

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Gradients of y, cs, hn, cn (None where nobody asked) to those of x, h0, c0 and the weights."""
        if torch.is_grad_enabled():  # create_graph=True; a constant in its place would be silently wrong
            raise UnsupportedError(
                "kernel 'cpu' gives first derivatives only; for create_graph=True ask for kernel='loop'"
            )
        lengths, reset, *rest = ctx.saved_tensors
        plain: list[Any] = [_plain(tensor) for tensor in rest]
        x, h0, c0, w_ih, w_hh, y, cs, saved = plain
        dx = torch.empty_like(x) if ctx.needs_input_grad[3] else None
        dh0 = torch.empty_like(h0)
        dc0 = None if c0 is None else torch.empty_like(c0)
        dw = [
            torch.zeros_like(w_ih),
            torch.zeros_like(w_hh),
            w_ih.new_zeros(w_ih.shape[0]),
            w_ih.new_zeros(w_ih.shape[0]),
        ]
        grads = [_plain(grad) for grad in grad_outputs]
        threads = torch.get_num_threads()
        _core.backward(
            ctx.name, x, lengths, reset, h0, c0, w_ih, w_hh, y, cs, saved, *grads, dx, dh0, dc0, *dw, threads
        )
        return None, None, None, dx, dh0, dc0, *dw

"""Random masks from a counter: which value is dropped follows from (seed, stream, step, row, unit) alone.

So a mask is never stored: backward draws it again, threads and devices draw it in any order, and a compiled graph draws the same.

    mix(x): x ^= x >> 16;  x *= 0x21f0aaad;  x ^= x >> 15;  x *= 0x735a2d97;  x ^= x >> 15        in uint32 (Wellons' lowbias32)
    key  = mix(mix(mix(mix(lo(seed) + 0x9e3779b9 * stream) ^ hi(seed)) + step) + row)
    bits = mix(key + unit),   dropped where  bits >> 8  <  floor(p * 2^24)

The C++ core has the same numbers (csrc/); here they are in int64, whose products of 32 bit numbers don't overflow.
A layer's streams are 8 * (layer * directions + direction) + one of the kinds below.
"""

from typing import Any

import torch
from torch import Tensor

from recurra.kernels import cpu
from recurra.kernels.tracing import forward_mode, transformed

OUTPUT, RECURRENT, ZONEOUT_H, ZONEOUT_C, WEIGHT = range(5)
_LOW = 0xFFFFFFFF


def _mix(x: Tensor) -> Tensor:
    x = x & _LOW
    x = x ^ (x >> 16)
    x = (x * 0x21F0AAAD) & _LOW
    x = x ^ (x >> 15)
    x = (x * 0x735A2D97) & _LOW
    return x ^ (x >> 15)


def dropped(p: float, seed: Tensor, stream: int, step: Tensor | int, row: Tensor, unit: Tensor) -> Tensor:
    """Where a value is dropped (or, for zoneout, kept from before): bool, of the shape of step, row and unit (int64) broadcast."""
    seed = seed.to(row.device)
    key = _mix((seed & _LOW) + 0x9E3779B9 * stream)
    key = _mix(key ^ ((seed >> 32) & _LOW))
    key = _mix(_mix(key + step) + row)
    return (_mix(key + unit) >> 8) < int(p * 2**24)


def at_step(p: float, seed: Tensor, stream: int, step: int, like: Tensor) -> Tensor:
    """`dropped` for the rows and units of `like` [rows, units] at one step."""
    rows, units = (torch.arange(size, device=like.device) for size in like.shape)
    return dropped(p, seed, stream, step, rows[:, None], units)


def factors(p: float, seed: Tensor, stream: int, like: Tensor) -> Tensor:
    """0 where dropped, else 1 / (1 - p), of the shape of `like`: [rows, units] (at step 0) or [steps, rows, units]."""
    *before, rows, units = (torch.arange(size, device=like.device) for size in like.shape)
    step = before[0][:, None, None] if before else 0
    kept = ~dropped(p, seed, stream, step, rows[:, None], units)
    return kept.to(like.dtype) * (1 / (1 - p) if p < 1 else 0.0)


def dropout(x: Tensor, p: float, seed: Tensor, stream: int) -> Tensor:
    """x [rows, units] (at step 0) or [steps, rows, units] with values dropped with probability p, the others times 1 / (1 - p).

    Linear in x, so its derivatives of any order are the same mask drawn again; nothing of it is stored.
    """
    if torch.compiler.is_compiling():
        return torch.ops.recurra.dropout(x, p, seed, stream)
    if transformed() or forward_mode():
        return x * factors(p, seed, stream, x)
    return _Dropout.apply(x, p, seed, stream)  # pyright: ignore[reportReturnType]


def _apply(x: Tensor, p: float, seed: Tensor, stream: int) -> Tensor:
    in_core = getattr(cpu._core, "mask_apply", None)
    if in_core is None or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return x * factors(p, seed, stream, x)
    x = x.contiguous()
    y = torch.empty_like(x)
    steps, rows, units = x.shape if x.dim() == 3 else (1, *x.shape)
    is_double = x.dtype == torch.float64
    in_core(x.data_ptr(), y.data_ptr(), steps, rows, units, p, int(seed), stream, is_double)
    return y


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float, seed: Tensor, stream: int) -> Tensor:
        ctx.mask = p, seed, stream
        return _apply(x, p, seed, stream)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return dropout(grads[0], *ctx.mask), None, None, None


@torch.library.custom_op("recurra::dropout", mutates_args=())
def _dropout(x: Tensor, p: float, seed: Tensor, stream: int) -> Tensor:
    return _apply(x, p, seed, stream).contiguous()


@_dropout.register_fake
def _(x: Tensor, p: float, seed: Tensor, stream: int) -> Tensor:
    return x.new_empty(x.shape)


def _keep_mask(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, p, seed, stream = inputs
    ctx.save_for_backward(seed)
    ctx.mask = p, stream


def _drop_again(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    p, stream = ctx.mask
    return torch.ops.recurra.dropout(grad, p, ctx.saved_tensors[0], stream), None, None, None


_dropout.register_autograd(_drop_again, setup_context=_keep_mask)


def new_seed() -> Tensor:
    """An int64 scalar from torch's default CPU generator: torch.manual_seed decides it, compiled or not."""
    if not torch.compiler.is_compiling():
        return torch.randint(2**63 - 1, ())
    # a fresh empty tensor tells two calls apart: nodes of equal arguments are merged, unless they are torch's own random ops
    return torch.ops.recurra.seed(torch.empty(0))


@torch.library.custom_op("recurra::seed", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def _seed(call: Tensor) -> Tensor:
    return torch.randint(2**63 - 1, ())


@_seed.register_fake
def _(call: Tensor) -> Tensor:
    return torch.empty((), dtype=torch.int64)

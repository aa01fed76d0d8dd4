"""The C++ kernel (cpu.py) as something that torch can differentiate, trace and map over.

eager                                      an autograd.Function around cpu.forward and cpu.backward
compiled, exported, vmap over inputs       the custom op (op.py)
second derivatives, forward mode, other transforms of torch.func       the loop, which torch differentiates any number of times
torch.jit.trace                            none: it records nothing of csrc/
"""

from typing import Any

import torch
from torch import Tensor

from recurra.kernels import cpu, loop, op
from recurra.kernels.request import WEIGHTS, Request, Scan
from recurra.kernels.tracing import forward_mode, jit_traced, mapped_gradient, only_mapped, traced, transformed

NAME = "cpu"


def refuses(request: Request) -> str | None:
    """Why it can't, or None."""
    return "torch.jit.trace can't record it" if jit_traced() else cpu.refuses(request)


def run(request: Request) -> Scan:
    """A request that `refuses` takes."""
    if traced(request.x) or (transformed() and only_mapped(_shared(request))):
        return _scan(request, *op.run(request))
    if transformed() or forward_mode():
        return loop.run(request)._replace(kernel=NAME)
    named = request.named
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in named.values()):
        outputs, *rest = _Scan.apply(request, tuple(named), *named.values())  # pyright: ignore[reportGeneralTypeIssues]
        parts = len(request.state)
        return _scan(request, outputs, rest[:parts], rest[parts])
    ran = cpu.forward(request, False)
    return _scan(request, ran.outputs, ran.state, ran.cells)


def _shared(request: Request) -> list[Tensor]:
    """What every row of a batch has in common: weights and the seed."""
    weights = [tensor for name, tensor in request.named.items() if name in WEIGHTS]
    return weights if request.seed is None else [*weights, request.seed]


def _scan(request: Request, outputs: Tensor, state: Any, cells: Tensor | None) -> Scan:
    State = request.cell.State
    states = None
    if request.states:  # of their own memory, as the loop's
        states = State(outputs.clone()) if cells is None else State(outputs.clone(), cells)
    return Scan(outputs, State(*state), states, None, NAME, "")


def _with(request: Request, x: Any, state: Any) -> Request:
    """dataclasses.replace for x and state, in a tenth of the time: it is on the path of every call."""
    new = object.__new__(Request)
    new.__dict__.update(request.__dict__, x=x, state=state)
    return new


class _Scan(torch.autograd.Function):
    """outputs, state and (where asked for) every c, of (request, names of the tensors, tensors)."""

    @staticmethod
    def forward(ctx: Any, request: Request, names: tuple[str, ...], *tensors: Tensor) -> tuple[Tensor | None, ...]:
        ran = cpu.forward(request, True)
        ctx.set_materialize_grads(False)
        ctx.names = names
        ctx.request = _with(request, None, None)  # x and state go where torch can free them and check their version
        for name in ("lengths", "reset", "batch_sizes"):  # a caller may use their memory again before backward
            if ctx.request.__dict__[name] is not None:
                ctx.request.__dict__[name] = ctx.request.__dict__[name].clone()
        ctx.save_for_backward(*tensors, ran.outputs, ran.saved)
        ctx.version = ran.outputs._version
        return ran.outputs, *ran.state, ran.cells if request.states else None

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        names = ctx.names
        *tensors, outputs, saved = op.kept(ctx)
        wanted = frozenset(name for name, need in zip(names, ctx.needs_input_grad[2:], strict=True) if need)
        d_outputs, *d_state, d_cells = grads
        # create_graph=True: the gradient itself must have one; is_grads_batched=True: the gradients are mapped tensors
        if torch.is_grad_enabled() or transformed() or mapped_gradient(grads):
            named = dict(zip(names, tensors, strict=True))
            got = loop.gradients(ctx.request, named, d_outputs, d_state, d_cells, wanted)
        else:
            parts = len(d_state)
            request = _with(ctx.request, tensors[0], ctx.request.cell.State(*tensors[1 : 1 + parts]))
            got = cpu.backward(request, outputs, saved, d_outputs, tuple(d_state), d_cells, wanted)
        return None, None, *(got.get(name) for name in names)

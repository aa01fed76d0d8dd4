"""The C++ kernel (cpu.py) as something that torch can differentiate, trace and map over.

    eager               an autograd.Function around cpu.forward and cpu.backward
    compiled, exported  the custom op recurra::scan, one node a scan, and recurra::scan_backward
    vmap over inputs    the op with the mapped dimension folded into the batch
    second derivatives, forward mode, other functorch transforms        the loop, which torch differentiates any number of times
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from recurra.cells import CELLS
from recurra.kernels import cpu, loop
from recurra.kernels.request import WEIGHTS, Request, Scan

NAME = "cpu"
refuses = cpu.refuses


def run(request: Request) -> Scan:
    """A request that `refuses` takes."""
    if request.cell.gain_ih is not None and not request.projected:
        request = _normalised(request)
    if traced(request.x):
        return _by_op(request)
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return _by_op(request) if _maps_inputs(request) else loop.run(request)._replace(kernel=NAME)
    if forward_ad._current_level >= 0:
        return loop.run(request)._replace(kernel=NAME)
    named = request.named
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in named.values()):
        outputs, *rest = _Scan.apply(request, tuple(named), *named.values())  # pyright: ignore[reportGeneralTypeIssues]
        parts = len(request.state)
        return _scan(request, outputs, rest[:parts], rest[parts])
    ran = cpu.forward(request, False)
    return _scan(request, ran.outputs, ran.state, ran.cells)


def traced(tensor: Tensor) -> bool:
    """Whether a graph is being recorded: no value may be read, and only ops that torch knows may run."""
    return torch.compiler.is_compiling() or type(tensor) not in (Tensor, torch.nn.Parameter)


def _maps_inputs(request: Request) -> bool:
    """Whether vmap is the only functorch transform here, and not over weights or masks."""
    vmap = torch._C._functorch.TransformType.Vmap
    if any(level.key() != vmap for level in torch._C._functorch.get_interpreter_stack() or ()):
        return False
    shared = [tensor for name, tensor in request.named.items() if name in WEIGHTS]
    shared += [] if request.seed is None else [request.seed]
    return not any(torch._C._functorch.is_batchedtensor(tensor) for tensor in shared)


def _scan(request: Request, outputs: Tensor, state: Any, cells: Tensor | None) -> Scan:
    State = request.cell.State
    states = None if not request.states else State(outputs) if cells is None else State(outputs, cells)
    return Scan(outputs, State(*state), states, None, NAME, "")


def _normalised(request: Request) -> Request:
    """The input's part of the sums and its LayerNorm in torch: it needs no state, so it is no part of the time loop."""
    x, live = request.x, loop.live_steps(request)
    if live is not None:  # whatever stands in the padding must not reach a gradient
        x = torch.where(live, x, 0.0)
    cell: Any = request.cell
    no_bias = torch.zeros_like(cell.bias_ih, requires_grad=False)
    return replace(request, x=cell.sums_ih(x), cell=replace(cell, bias_ih=no_bias), projected=True)


def _filled(request: Request, named: dict[str, Any]) -> Request:
    """The request with other tensors, by their names in Request.named."""
    cell: Any = replace(request.cell, **{name: named[name] for name in WEIGHTS if name in named})  # pyright: ignore[reportArgumentType]
    return replace(request, cell=cell, x=named["x"], state=cell.State(*(named[name] for name in cell.State._fields)))


def _with(request: Request, x: Any, state: Any) -> Request:
    """`_filled` for x and state alone, in a tenth of the time: it is on the path of every call."""
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
        ctx.request = _with(request, None, None)  # its x and state are saved where torch can free them and check their version
        ctx.save_for_backward(*tensors, ran.outputs, *ran.state, ran.cells, ran.saved)
        return ran.outputs, *ran.state, ran.cells if request.states else None

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        names, count = ctx.names, len(ctx.names)
        tensors, (outputs, *state, cells, saved) = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        wanted = frozenset(name for name, need in zip(names, ctx.needs_input_grad[2:], strict=True) if need)
        d_outputs, *d_state, d_cells = grads
        # create_graph=True: the gradient itself must have one; is_grads_batched=True: the gradients are mapped tensors
        if torch.is_grad_enabled() or torch._C._functorch.peek_interpreter_stack() is not None:
            named = dict(zip(names, tensors, strict=True))
            got = _by_loop(ctx.request, named, d_outputs, d_state, d_cells, wanted)
        else:
            parts = len(state)
            request = _with(ctx.request, tensors[0], ctx.request.cell.State(*tensors[1 : 1 + parts]))
            ran = cpu.Ran(outputs, tuple(state), cells, saved)
            got = cpu.backward(request, ran, d_outputs, tuple(d_state), d_cells, wanted)
        return None, None, *(got.get(name) for name in names)


def _by_loop(
    request: Request,
    named: dict[str, Tensor],
    d_outputs: Tensor | None,
    d_state: list[Tensor | None],
    d_cells: Tensor | None,
    wanted: frozenset[str],
) -> dict[str, Tensor]:
    """The gradients as torch finds them in the loop, with a graph of their own.

    Through fresh views, so that one tensor in two places (tied weights), or one that depends on another, is counted in each once.
    """
    with torch.enable_grad():
        views = {name: tensor.view_as(tensor) if name in wanted else tensor for name, tensor in named.items()}
        scan = loop.run(_filled(request, views))
        outputs = [scan.outputs, *scan.state, *(scan.states or ())[1:]]
        pairs = [(a, b) for a, b in zip(outputs, (d_outputs, *d_state, d_cells), strict=False) if b is not None]
        inputs = [view for name, view in views.items() if name in wanted]
        grads = torch.autograd.grad(
            [a for a, _ in pairs], inputs, [b for _, b in pairs], create_graph=True, allow_unused=True
        )
    return dict(zip([name for name in views if name in wanted], grads, strict=True))


# -- the ops ---------------------------------------------------------------------------------------------------------------------

_TENSORS = ("x", "h", "c", *WEIGHTS, "lengths", "reset", "batch_sizes", "seed")
_NUMBERS = {
    "states": "bool",
    "reverse": "bool",
    "recurrent_dropout": "float",
    "zoneout_h": "float",
    "zoneout_c": "float",
    "training": "bool",
    "stream": "int",
    "checkpoint": "int",
    "projected": "bool",
}
_REQUIRED = ("x", "h", "weight_ih", "weight_hh", "bias_ih", "bias_hh")
_ARGUMENTS = ", ".join(
    [f"Tensor{'' if name in _REQUIRED else '?'} {name}" for name in _TENSORS]
    + ["str cell"]
    + [f"{kind} {name}" for name, kind in _NUMBERS.items()]
)
_LENGTHS = len(_TENSORS) - 4  # where the tensors without gradients begin


def _by_op(request: Request) -> Scan:
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in request.tensors)
    outputs, h, c, cells, _ = torch.ops.recurra.scan(*_flat(request), keep)
    lstm = len(request.state) > 1
    return _scan(request, outputs, (h, c) if lstm else (h,), cells if lstm else None)


def _flat(request: Request) -> list[Any]:
    named = request.named
    tensors = [named.get(name) for name in _TENSORS[:_LENGTHS]]
    if request.projected:  # not used, but the op has a place for them
        tensors[_TENSORS.index("weight_ih")] = request.cell.weight_ih.detach()
        tensors[_TENSORS.index("bias_ih")] = request.cell.bias_ih
    others = [getattr(request, name) for name in _TENSORS[_LENGTHS:]]
    return [*tensors, *others, request.cell.name, *(getattr(request, name) for name in _NUMBERS)]


def _request(flat: tuple[Any, ...] | list[Any]) -> Request:
    tensors = dict(zip(_TENSORS, flat, strict=False))
    name, *numbers = flat[len(_TENSORS) :]
    kind = CELLS[name]
    fields = [field for field in WEIGHTS if field in kind.__dataclass_fields__]
    return Request(
        cell=kind(**{field: tensors[field] for field in fields}),
        x=tensors["x"],
        state=kind.State(*(tensors[field] for field in kind.State._fields)),
        **{field: tensors[field] for field in _TENSORS[_LENGTHS:]},
        **dict(zip(_NUMBERS, numbers, strict=True)),
    )


@torch.library.custom_op(
    "recurra::scan",
    mutates_args=(),
    schema=f"({_ARGUMENTS}, bool keep) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _op(*flat: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """outputs, h, c, cells, saved: what a Ran holds, empty where it has none, cells flat where nobody asked for them."""
    *rest, keep = flat
    request = _request(rest)
    ran = cpu.forward(request, keep)
    none = request.x.new_empty(0)
    c = ran.state[1] if len(ran.state) > 1 else none
    cells = none if ran.cells is None else ran.cells if request.states else ran.cells.reshape(-1)
    return ran.outputs, ran.state[0], c, cells, none.clone() if ran.saved is None else ran.saved


@_op.register_fake
def _(*flat: Any) -> tuple[Tensor, ...]:
    *rest, keep = flat
    request = _request(rest)
    x, state = request.x, request.state
    time = x.shape[:-1]
    unknown = torch.library.get_ctx().new_dynamic_size if keep else lambda: 0
    lstm = len(state) > 1
    c = x.new_empty(state[1].shape if lstm else 0)
    cells = x.new_empty((*time, c.shape[-1]) if lstm and request.states else unknown() if lstm else 0)
    return x.new_empty(*time, state[0].shape[1]), x.new_empty(state[0].shape), c, cells, x.new_empty(unknown())


@torch.library.custom_op(
    "recurra::scan_backward",
    mutates_args=(),
    schema=f"(Tensor? d_outputs, Tensor? d_h, Tensor? d_c, Tensor? d_cells, Tensor outputs, Tensor h_n, Tensor c_n, Tensor cells, "
    f"Tensor saved, {_ARGUMENTS}, str wanted) -> Tensor[]",
)
def _backward_op(d_outputs: Any, d_h: Any, d_c: Any, d_cells: Any, *flat: Any) -> list[Tensor]:
    outputs, h_n, c_n, cells, saved, *rest, wanted = flat
    request = _request(rest)
    lstm = len(request.state) > 1
    every = cells.view(*outputs.shape[:-1], c_n.shape[-1]) if lstm and cells.numel() else None
    ran = cpu.Ran(outputs, (h_n, c_n) if lstm else (h_n,), every, saved)
    names = wanted.split()
    got = cpu.backward(request, ran, d_outputs, (d_h, d_c) if lstm else (d_h,), d_cells, frozenset(names))
    return [got[name].contiguous() for name in names]


@_backward_op.register_fake
def _(*flat: Any) -> list[Tensor]:
    *rest, wanted = flat
    named = dict(zip(_TENSORS, rest[9:], strict=False))
    return [named[name].new_empty(named[name].shape) for name in wanted.split()]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[: len(_TENSORS)], *output)
    ctx.numbers = inputs[len(_TENSORS) : -1]


def _gradients(ctx: Any, d_outputs: Any, d_h: Any, d_c: Any, d_cells: Any, _: Any) -> tuple[Any, ...]:
    saved, count = ctx.saved_tensors, len(_TENSORS)
    flat = [*saved[:count], *ctx.numbers]
    names = [name for name, need in zip(_TENSORS, ctx.needs_input_grad, strict=False) if need]
    request = _request(flat)
    lstm = len(request.state) > 1
    d_c, d_cells = (d_c, d_cells if request.states else None) if lstm else (None, None)
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        named = {**request.named, "weight_ih": request.cell.weight_ih, "bias_ih": request.cell.bias_ih}
        got = _by_loop(request, named, d_outputs, [d_h, d_c] if lstm else [d_h], d_cells, frozenset(names))
    else:
        grads = torch.ops.recurra.scan_backward(d_outputs, d_h, d_c, d_cells, *saved[count:], *flat, " ".join(names))
        got = dict(zip(names, grads, strict=True))
    return *(got.get(name) for name in _TENSORS), *(None for _ in ctx.numbers), None


_op.register_autograd(_gradients, setup_context=_keep)


@_op.register_vmap
def _mapped(info: Any, dims: tuple[Any, ...], *flat: Any) -> tuple[Any, ...]:
    """Mapped inputs and states run as one larger batch; where weights or masks are mapped too, one run after another."""
    mapped = {name for name, dim in zip(_TENSORS, dims, strict=False) if dim is not None}
    request = _request(flat[:-1])
    lstm = len(request.state) > 1
    every = lstm and request.states
    drawn = request.training and (request.recurrent_dropout or request.zoneout_h or request.zoneout_c)
    if mapped & {*WEIGHTS, "seed", "batch_sizes"} or request.batch_sizes is not None or drawn:
        runs = [torch.ops.recurra.scan(*_nth(flat, dims, k)) for k in range(info.batch_size)]
        out = 0, 0, 0 if lstm else None, 0 if every else None, None
        parts = zip(*runs, strict=True)
        return tuple(part[0] if dim is None else torch.stack(part) for part, dim in zip(parts, out, strict=True)), out
    at = {"x": 1, "h": 0, "c": 0, "lengths": 0, "reset": 0}  # where each has its rows
    folded = list(flat)
    for k, (name, dim) in enumerate(zip(_TENSORS, dims, strict=False)):
        if name in at and flat[k] is not None:
            value = flat[k].expand(info.batch_size, *flat[k].shape) if dim is None else flat[k].movedim(dim, 0)
            folded[k] = value.movedim(0, at[name]).flatten(at[name], at[name] + 1)
    outputs, h, c, cells, saved = torch.ops.recurra.scan(*folded)
    rows = info.batch_size, h.shape[0] // info.batch_size
    c, cells = c.unflatten(0, rows) if lstm else c, cells.unflatten(1, rows) if every else cells
    out = 1, 0, 0 if lstm else None, 1 if every else None, None
    return (outputs.unflatten(1, rows), h.unflatten(0, rows), c, cells, saved), out


def _nth(flat: tuple[Any, ...], dims: tuple[Any, ...], k: int) -> list[Any]:
    return [value if dim is None else value.select(dim, k) for value, dim in zip(flat, dims, strict=True)]

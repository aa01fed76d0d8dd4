"""recurra::scan, the C++ kernel as a torch op: one node a scan in a compiled or exported graph, for any T and B.

recurra::scan_backward is its derivative; vmap over inputs folds the mapped dimension into the batch.
"""

from typing import Any

import torch
from torch import Tensor

from recurra.cells import CELLS
from recurra.kernels import cpu, loop
from recurra.kernels.request import WEIGHTS, Request

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
}
_REQUIRED = ("x", "h", "weight_ih", "weight_hh", "bias_ih", "bias_hh")
_ARGUMENTS = ", ".join(
    [f"Tensor{'' if name in _REQUIRED else '?'} {name}" for name in _TENSORS]
    + ["str cell"]
    + [f"{kind} {name}" for name, kind in _NUMBERS.items()]
)
_LENGTHS = len(_TENSORS) - 4  # where the tensors without gradients begin


def run(request: Request) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None]:
    """outputs, state and (of an LSTM that was asked for states) every c."""
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in request.tensors)
    outputs, h, c, cells, _ = torch.ops.recurra.scan(*_flat(request), keep)
    return (outputs, (h, c), cells) if len(request.state) > 1 else (outputs, (h,), None)


def _flat(request: Request) -> list[Any]:
    named = request.named
    tensors = [named.get(name) for name in _TENSORS[:_LENGTHS]]
    others = [getattr(request, name) for name in _TENSORS[_LENGTHS:]]
    return [*tensors, *others, request.cell.name, *(getattr(request, name) for name in _NUMBERS)]


def _request(flat: tuple[Any, ...] | list[Any]) -> Request:
    tensors: dict[str, Any] = dict(zip(_TENSORS, flat, strict=False))
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
    """outputs, h, c, cells, saved: what a Ran holds, empty where it has none."""
    keep = flat[-1]
    request = _request(flat[:-1])
    ran = cpu.forward(request, keep)
    h, *others = ran.state
    parts = (others[0] if others else None, ran.cells, ran.saved)
    c, cells, saved = (request.x.new_empty(0) if part is None else part for part in parts)
    return ran.outputs, h, c, cells, saved


@_op.register_fake
def _(*flat: Any) -> tuple[Tensor, ...]:
    *rest, keep = flat
    request = _request(rest)
    x, state = request.x, request.state
    time = x.shape[:-1]
    lstm = len(state) > 1
    c = x.new_empty(state[1].shape if lstm else 0)
    cells = x.new_empty((*time, c.shape[-1]) if lstm and request.states else 0)
    saved = x.new_empty(_saved_size() if keep else 0)
    return x.new_empty(*time, state[0].shape[1]), x.new_empty(state[0].shape), c, cells, saved


def _saved_size() -> Any:
    """A size that a graph does not know; 0 where none is recorded (FakeTensorMode alone), which has no name for it."""
    context = torch.library.get_ctx()
    return 0 if context._shape_env is None else context.new_dynamic_size()


@torch.library.custom_op(
    "recurra::scan_backward",
    mutates_args=(),
    schema=f"(Tensor? d_outputs, Tensor? d_h, Tensor? d_c, Tensor? d_cells, Tensor outputs, Tensor saved, {_ARGUMENTS}, str wanted) "
    "-> Tensor[]",
)
def _backward_op(
    d_outputs: Any, d_h: Any, d_c: Any, d_cells: Any, outputs: Any, saved: Any, *flat: Any
) -> list[Tensor]:
    *rest, wanted = flat
    request = _request(rest)
    d_state = (d_h, d_c) if len(request.state) > 1 else (d_h,)
    names = wanted.split()
    got = cpu.backward(request, outputs, saved, d_outputs, d_state, d_cells, frozenset(names))
    return [got[name].contiguous() for name in names]


@_backward_op.register_fake
def _(*flat: Any) -> list[Tensor]:
    *rest, wanted = flat
    named = dict(zip(_TENSORS, rest[6:], strict=False))
    return [named[name].new_empty(named[name].shape) for name in wanted.split()]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    outputs, _, _, _, saved = output
    ctx.save_for_backward(*inputs[: len(_TENSORS)], outputs, saved)
    ctx.version = outputs._version
    ctx.numbers = inputs[len(_TENSORS) : -1]


def kept(ctx: Any) -> tuple[Tensor, ...]:
    """The saved tensors, with an empty one for outputs that were changed in place, as torch.nn allows: they are computed again."""
    try:
        *others, outputs, saved = ctx.saved_tensors
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        ctx._raw_saved_tensors[-2].register_hooks(lambda changed: None, lambda _: torch.empty(0))
        return ctx.saved_tensors  # raises again where it was another tensor
    # torch itself does not compare versions where hooks (save_on_cpu, checkpointing) kept or made the tensor
    return *others, outputs if outputs._version == ctx.version else outputs.new_empty(0), saved


def _gradients(ctx: Any, d_outputs: Any, d_h: Any, d_c: Any, d_cells: Any, _: Any) -> tuple[Any, ...]:
    *tensors, outputs, saved = kept(ctx)
    flat = [*tensors, *ctx.numbers]
    names = [name for name, need in zip(_TENSORS, ctx.needs_input_grad, strict=False) if need]
    request = _request(flat)
    lstm = len(request.state) > 1
    d_c, d_cells = (d_c, d_cells if request.states else None) if lstm else (None, None)
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        named = {**request.named, "weight_ih": request.cell.weight_ih, "bias_ih": request.cell.bias_ih}
        got = loop.gradients(request, named, d_outputs, [d_h, d_c] if lstm else [d_h], d_cells, frozenset(names))
    else:
        grads = torch.ops.recurra.scan_backward(d_outputs, d_h, d_c, d_cells, outputs, saved, *flat, " ".join(names))
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

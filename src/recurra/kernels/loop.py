"""The truth: a cell over time in plain torch. It covers everything and defines the answer; other kernels are only faster.

A step, for each row that it concerns:

    1. reset     state <- 0 where reset[b, t]
    2. hd = h * m                   recurrent dropout: one mask m a row for all steps; only weight_hh sees hd
    3. the cell's step: gates from (x, hd, c), then h~ and c~
    4. zoneout   in training c' = c where kept, else c~; otherwise c' = z c + (1 - z) c~; h likewise
    5. output h'
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from recurra.kernels import masks
from recurra.kernels.request import WEIGHTS, Request, Scan

NAME = "loop"


def refuses(request: Request) -> str | None:
    """None: it runs any cell, dtype and device, and can be differentiated any number of times."""
    return None


def run(request: Request) -> Scan:
    """Step by step. torch.where, never a product with a mask: 0 * NaN is NaN, and so is its gradient."""
    if request.batch_sizes is not None:
        return _packed(request)
    cell, x = request.cell, request.x
    state: Any = request.state
    steps = x.shape[0]
    live = live_steps(request)
    if live is not None:
        x = torch.where(live, x, 0.0)
    sums = cell.sums_ih(x)
    seen = None
    if request.recurrent_dropout and request.training:
        seen = masks.factors(request.recurrent_dropout, _seed(request), request.stream + masks.RECURRENT, state.h)
    outputs: list[Tensor] = [x] * steps
    every: list[tuple[Tensor, ...]] = [()] * steps
    gates: list[dict[str, Tensor]] = [{}] * steps
    for t in reversed(range(steps)) if request.reverse else range(steps):
        on = None if live is None else live[t]
        cut = _cut(request, live, t)
        if cut is not None:
            state = cell.State(*(torch.where(cut, 0.0, part) for part in state))
        gate = cell.activate(sums[t], state if seen is None else state._replace(h=state.h * seen))
        _, new = cell.advance(gate, state)
        new = _zoneout(request, t, state, new)
        if on is not None:
            gate = {name: torch.where(on, value, 0.0) for name, value in gate.items()}
            every[t] = tuple(torch.where(on, part, 0.0) for part in new)
            new = cell.State(*(torch.where(on, a, b) for a, b in zip(new, state, strict=True)))
        else:
            every[t] = tuple(new)
        state = new
        outputs[t] = every[t][0]
        gates[t] = gate
    return Scan(
        outputs=torch.stack(outputs),
        state=state,
        states=cell.State(*(torch.stack(part) for part in zip(*every, strict=True))) if request.states else None,
        trace={name: torch.stack([g[name] for g in gates]) for name in gates[0]} if request.trace else None,
        kernel=NAME,
        why="",
    )


def live_steps(request: Request) -> Tensor | None:
    """[T, B, 1] bool, the steps within each row's length; None where all are."""
    if request.lengths is None:
        return None
    return (torch.arange(request.x.shape[0], device=request.x.device)[:, None] < request.lengths).unsqueeze(-1)


def _cut(request: Request, live: Tensor | None, t: int) -> Tensor | None:
    """Where the state starts anew at step t, [B, 1]. A cut beyond a row's end cuts nothing."""
    at = t + 1 if request.reverse else t
    if request.reset is None or at == request.x.shape[0]:
        return None
    cut = request.reset[:, at, None].bool()
    return cut if live is None else cut & live[at]


def _zoneout(request: Request, t: int, old: tuple[Tensor, ...], new: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Each part of the state with some of its units, or in evaluation some of its value, from before."""
    rates = (request.zoneout_h, request.zoneout_c)[: len(old)]
    mixed: list[Tensor] = []
    for p, kind, before, after in zip(rates, (masks.ZONEOUT_H, masks.ZONEOUT_C), old, new, strict=False):
        if not p:
            mixed.append(after)
        elif request.training:
            keep = masks.at_step(p, _seed(request), request.stream + kind, t, after)
            mixed.append(torch.where(keep, before, after))
        else:
            mixed.append(p * before + (1 - p) * after)
    return request.cell.State(*mixed)


def _seed(request: Request) -> Tensor:
    assert request.seed is not None, "scan checks that a request with masks has a seed"
    return request.seed


def _packed(request: Request) -> Scan:
    """The padded scan of a packed batch, and its frames taken back."""
    sizes = request.batch_sizes
    assert sizes is not None
    device, steps = request.x.device, sizes.shape[0]
    t = torch.repeat_interleave(torch.arange(steps), sizes).to(device)
    b = (torch.arange(t.shape[0]) - torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)).to(device)
    padded = request.x.new_zeros(steps, request.rows, request.x.shape[-1]).index_put((t, b), request.x)
    lengths = (sizes[:, None] > torch.arange(request.rows)).sum(0).to(device)
    scan = run(replace(request, x=padded, lengths=lengths, batch_sizes=None))
    return scan._replace(
        outputs=scan.outputs[t, b],
        states=None if scan.states is None else request.cell.State(*(part[t, b] for part in scan.states)),
        trace=None if scan.trace is None else {name: gate[t, b] for name, gate in scan.trace.items()},
    )


def gradients(
    request: Request,
    named: dict[str, Tensor],
    d_outputs: Tensor | None,
    d_state: list[Tensor | None],
    d_cells: Tensor | None,
    wanted: frozenset[str],
) -> dict[str, Tensor]:
    """The `wanted` gradients by name, as torch finds them in the loop, with a graph of their own, of a request whose tensors are `named`.

    Through fresh views, so that one tensor in two places (tied weights), or one that depends on another, is counted in each once.
    """
    with torch.enable_grad():
        views = {name: tensor.view_as(tensor) if name in wanted else tensor for name, tensor in named.items()}
        scan = run(_filled(request, views))
        outputs = [scan.outputs, *scan.state, *(scan.states or ())[1:]]
        pairs = [(a, b) for a, b in zip(outputs, (d_outputs, *d_state, d_cells), strict=False) if b is not None]
        inputs = [view for name, view in views.items() if name in wanted]
        grads = torch.autograd.grad(
            [a for a, _ in pairs], inputs, [b for _, b in pairs], create_graph=True, allow_unused=True
        )
    return dict(zip([name for name in views if name in wanted], grads, strict=True))


def _filled(request: Request, named: dict[str, Any]) -> Request:
    """The request with other tensors, by their names in Request.named."""
    cell: Any = replace(request.cell, **{name: named[name] for name in WEIGHTS if name in named})  # pyright: ignore[reportArgumentType]
    return replace(request, cell=cell, x=named["x"], state=cell.State(*(named[name] for name in cell.State._fields)))

"""The truth: a cell over time in plain torch. It covers everything and defines the answer; other kernels are only faster."""

import torch
from torch import Tensor

from recurra.kernels.request import Request, Scan

NAME = "loop"


def refuses(request: Request) -> str | None:
    """None: it runs any cell, dtype and device, and can be differentiated any number of times."""
    return None


def run(request: Request) -> Scan:
    """Step by step. torch.where, never a product with a mask: 0 * NaN is NaN, and so is its gradient."""
    cell, x, state = request.cell, request.x, request.state
    steps = x.shape[0]
    live = None
    if request.lengths is not None:
        live = (torch.arange(steps, device=x.device)[:, None] < request.lengths).unsqueeze(-1)  # [T, B, 1]
        x = torch.where(live, x, 0.0)
    outputs: list[Tensor] = []
    every: list[tuple[Tensor, ...]] = []
    gates: list[dict[str, Tensor]] = []
    for t in range(steps):
        if request.reset is not None:
            now = request.reset[:, t, None]
            if live is not None:
                now = now & live[t]
            state = cell.State(*(torch.where(now, 0.0, part) for part in state))
        gate = cell.named_gates(x[t], state)
        output, new = cell.advance(gate, state)
        if live is not None:
            on = live[t]
            output = torch.where(on, output, 0.0)
            gate = {name: torch.where(on, value, 0.0) for name, value in gate.items()}
            every.append(tuple(torch.where(on, part, 0.0) for part in new))
            new = cell.State(*(torch.where(on, a, b) for a, b in zip(new, state, strict=True)))
        else:
            every.append(tuple(new))
        state = new
        outputs.append(output)
        gates.append(gate)
    return Scan(
        outputs=torch.stack(outputs),
        state=state,
        states=cell.State(*(torch.stack(part) for part in zip(*every, strict=True))) if request.states else None,
        trace={name: torch.stack([g[name] for g in gates]) for name in gates[0]} if request.trace else None,
        kernel=NAME,
        why="",
    )

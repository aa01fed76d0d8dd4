"""What a training step keeps between forward and backward: torch.nn.LSTM against ours with checkpoint none, "gates" and "every 16".

`python benchmarks/kernels.py --tables memory`. Bytes are counted three ways, each variant in a process that does nothing else:
- counted: every tensor that autograd saves, seen by torch.autograd.graph.saved_tensors_hooks (oneDNN's workspace is one of them), and
  every tensor that a node of the graph holds in another way; each storage once, without the parameters and x, which are there anyway.
  The output counts in both. The bars are about these: what is allocated between forward and backward.
- resident: the rise of resident memory over a forward pass whose output stays alive, after two steps of the same shape, every tensor in
  pages of its own (MALLOC_MMAP_THRESHOLD_). oneDNN touches about a third of its workspace (16 floats for each step, row and unit are
  allocated, 6 are in memory after forward): the rest is for its backward pass.
- peak: the highest rise of resident memory over a whole training step (Linux: VmHWM), gradients included.
The times are those of a whole training step.
"""

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contest import Bar, Contest

SHAPES = (
    (100, 32, 8, 64, 1),
    (168, 256, 16, 128, 1),
    (35, 20, 200, 200, 2),
    (35, 64, 650, 650, 2),
    (50, 64, 256, 512, 1),
)
CHECKPOINTS = {"recurra": {}, "recurra gates": {"checkpoint": "gates"}, "recurra every 16": {"checkpoint": "every 16"}}


def layer_of(name: str, shape: tuple[int, int, int, int, int]) -> tuple[Any, Any, Any]:
    import torch

    import recurra.nn

    steps, rows, inputs, hidden, layers = shape
    torch.manual_seed(0)
    kind: Any = torch.nn.LSTM if name == "torch" else recurra.nn.LSTM
    layer = kind(inputs, hidden, layers, **CHECKPOINTS.get(name, {}))
    return layer, torch.randn(steps, rows, inputs), torch.randn(steps, rows, hidden)


def make(name: str, shape: tuple[int, int, int, int, int]) -> Callable[[], Any]:
    from recurra.machine import step

    layer, x, dy = layer_of(name, shape)
    return step(lambda: layer(x)[0], list(layer.parameters()), dy)


def weigh(name: str, shape: tuple[int, int, int, int, int]) -> dict[str, Any]:
    from recurra.kernels import release_memory

    layer, x, dy = layer_of(name, shape)
    counted = saved(layer, x)
    for _ in range(2):
        layer(x)[0].backward(dy)
        layer.zero_grad()
    release_memory()  # what ours keeps between the steps is counted in the step that fills it
    before = resident()
    output = layer(x)[0]
    rise = resident() - before
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    output.backward(dy)
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024 - before
    steps, rows, _, hidden, layers = shape
    return {
        "counted": counted,
        "resident": rise,
        "peak": max(peak, rise),
        "floats_a_unit": round(counted / 4 / (steps * rows * hidden * layers), 2),
    }


def saved(layer: Any, x: Any) -> int:
    """Bytes of the storages that the graph of layer(x) keeps, without parameters and x."""
    import torch

    storages: dict[int, int] = {}
    alive = []

    def keep(tensor: Any) -> Any:
        alive.append(tensor)
        if tensor.layout == torch.strided:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        else:
            storages[id(tensor)] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = layer(x)[0]
    keep(output)
    seen, nodes = set(), [output.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [before for before, _ in node.next_functions]
        # what a Function of Python keeps as an attribute instead of saving it
        for value in vars(node).values() if hasattr(node, "__dict__") else ():
            for tensor in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(tensor, torch.Tensor):
                    keep(tensor)
    for tensor in [*layer.parameters(), x]:
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(storages.values())


def resident() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def contests() -> list[Contest]:
    made = []
    for shape in SHAPES:
        bars = (
            Bar("recurra", "torch", at_most=0.4, of="counted"),
            Bar("recurra gates", "torch", at_most=0.15, of="counted"),
            Bar("recurra every 16", "torch", at_most=0.15, of="counted"),
            *(Bar(name, "torch", of=of) for of in ("resident", "peak") for name in CHECKPOINTS),
            Bar("recurra gates", "recurra", at_most=1.4),
            Bar("recurra every 16", "recurra", at_most=1.4),
        )
        names = ("torch", *CHECKPOINTS)
        variants = {name: lambda name=name, shape=shape: make(name, shape) for name in names}
        row = f"lstm {','.join(map(str, shape))} training"
        made.append(Contest(row, variants, bars, names, weigh=lambda name, shape=shape: weigh(name, shape)))
    return made

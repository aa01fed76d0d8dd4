"""What torch is doing with a call beside running it: recording a graph, mapping, differentiating forwards."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

_functorch: Any = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]


def traced(tensor: Tensor) -> bool:
    """Whether a graph is being recorded: no value may be read, and only ops that torch knows may run."""
    return torch.compiler.is_compiling() or type(tensor) not in (Tensor, torch.nn.Parameter)


def jit_traced() -> bool:
    """Whether torch.jit.trace, or the ONNX exporter with dynamo=False, records torch's ops: a loop's steps, but none of csrc/."""
    return torch._C._get_tracing_state() is not None


def transformed() -> bool:
    """Whether this is inside torch.func: vmap, grad, jvp or those built on them."""
    return _functorch.peek_interpreter_stack() is not None


def forward_mode() -> bool:
    """Whether this is inside torch.autograd.forward_ad.dual_level."""
    return forward_ad._current_level >= 0


def mapped_gradient(gradients: tuple[Tensor | None, ...]) -> bool:
    """Whether autograd.grad was called with is_grads_batched=True."""
    return any(gradient is not None and _functorch.is_legacy_batchedtensor(gradient) for gradient in gradients)


def only_mapped(shared: list[Tensor]) -> bool:
    """Whether vmap is the only transform here, and none of the `shared` tensors is mapped."""
    levels = _functorch.get_interpreter_stack() or ()
    mapped = all(level.key() == _functorch.TransformType.Vmap for level in levels)
    return mapped and not any(_functorch.is_batchedtensor(tensor) for tensor in shared)

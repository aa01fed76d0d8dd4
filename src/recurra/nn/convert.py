"""A model's torch.nn.LSTM, GRU and RNN turned into ours, and back."""

from typing import Any

import torch
from torch.nn.utils import parametrize

from recurra.errors import RecipeError, UnsupportedError
from recurra.nn.recurrent import GRU, LSTM, RNN

OURS: dict[type[Any], type[Any]] = {torch.nn.LSTM: LSTM, torch.nn.GRU: GRU, torch.nn.RNN: RNN}


def convert(model: Any, *, back: bool = False) -> Any:
    """Turn every torch.nn.LSTM, GRU and RNN in `model` (itself included) into recurra's, in place, or `back`; gives `model`.

    Each module stays the same object of another class: its parameters, buffers, hooks, mode, device and whoever else holds it go on,
    optimisers included. Subclasses of torch's are left alone, since they may compute something else.
    Raises UnsupportedError, before anything is changed, where `back` meets an option that torch lacks; RecipeError for no module.
    """
    if not isinstance(model, torch.nn.Module):
        raise RecipeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    kinds: dict[type[Any], type[Any]] = {ours: theirs for theirs, ours in OURS.items()} if back else OURS
    found: list[Any] = [module for module in model.modules() if _kind(module) in kinds]
    if back:
        for module in found:
            beyond = [
                name for name in module.OPTIONS if name in module.__dict__ and name not in ("kernel", "checkpoint")
            ]
            if beyond:
                set_ = ", ".join(f"{name}={getattr(module, name)}" for name in beyond)
                raise UnsupportedError(
                    f"torch.nn.{_kind(module).__name__} has no {set_}; keep recurra's, or train without"
                )
    for module in found:
        if back:
            module.__dict__.pop("kernel", None)
            module.__dict__.pop("checkpoint", None)
        module.__class__ = _like(type(module), kinds[_kind(module)])
    return model


def _kind(module: Any) -> type[Any]:
    """Its class, seen through torch.nn.utils.parametrize, which gives a module a class of its own."""
    return type(module).__bases__[0] if parametrize.is_parametrized(module) else type(module)


def _like(now: type[Any], kind: type[Any]) -> type[Any]:
    """`kind`, or where `now` is a class that parametrize made, the same on top of `kind`."""
    if now in OURS or now in OURS.values():
        return kind
    return type(now.__name__, (kind,), {k: v for k, v in vars(now).items() if k not in ("__dict__", "__weakref__")})

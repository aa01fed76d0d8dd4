"""The arrays of a model: found by name, of the shape that is needed, and none of them left unplayed."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from recurra.errors import ModelFileError

BARE = ("pool", "attention")  # kinds of layers that may have no weights


class Weights(Mapping[str, np.ndarray]):
    """The arrays of a model file, name -> array; it knows which of them were asked for."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = arrays
        self._read: set[str] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        array = self._arrays[name]
        self._read.add(name)
        return array

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def check(self, task: str, layers: Iterable[Mapping[str, Any]]) -> None:
        """Raises ModelFileError where a weight was asked for by no layer, or one of `layers` has no weight that was."""
        unread = sorted(set(self._arrays) - self._read)
        if unread:
            raise ModelFileError(
                f"no layer that this recurra plays for '{task}' reads the weight {_few(unread)}: upgrade recurra, or train it anew"
            )
        for layer in layers:
            if layer.get("kind") not in BARE and not under(self, layer["name"]):
                raise ModelFileError(
                    f"model.json has the layer '{layer['name']}', but no weight is under this name; there are {_few(self)}: train it anew"
                )


def under(weights: Mapping[str, np.ndarray], layer: str) -> dict[str, np.ndarray]:
    """The weights of one layer, each by its name within the layer."""
    return {name.removeprefix(f"{layer}."): weights[name] for name in weights if name.startswith(f"{layer}.")}


def unplayable(what: str, error: Exception) -> ModelFileError:
    """What is said of a model whose parts don't make one: `error` is what came of putting them together."""
    why = f"it lacks '{error.args[0]}'" if isinstance(error, KeyError) else str(error).splitlines()[0]
    return ModelFileError(f"this is no {what} that can be played: {why}")


def matrix(weights: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """A weight of two axes, float32. Raises ModelFileError."""
    if name not in weights:
        raise ModelFileError(f"the weight {name} is missing; there are {_few(weights)}")
    array = _array(weights, name)
    if array.ndim != 2:
        raise ModelFileError(f"{name} must be a matrix, not of shape {array.shape}")
    return array


def bias(weights: Mapping[str, np.ndarray], name: str, size: int) -> np.ndarray | None:
    """A weight [size], float32; None where there is none. Raises ModelFileError."""
    if name not in weights:
        return None
    array = _array(weights, name)
    if array.shape != (size,):
        raise ModelFileError(f"{name} must have shape {(size,)}, not {array.shape}")
    return array


def refuse_further(weights: Iterable[str], known: Iterable[str], layers: int) -> None:
    """Raises ModelFileError for a weight beside the `known` ones: what it does would be left out in silence."""
    further = sorted(set(weights) - set(known))
    if not further:
        return
    name = further[0]
    part, _, place = name.partition("_l")
    number = place.removesuffix("_reverse")
    if part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh") and number.isdecimal():
        way = f"say layers={int(number) + 1}" if int(number) >= layers else "play it with Bidirectional"
    else:
        way = "train it without the option that made it (layer_norm, peepholes, proj_size)"
    raise ModelFileError(f"the runtime has no place for the weight {name} among {layers} layer(s): {way}")


def _array(weights: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    array = np.asarray(weights[name])
    if not np.can_cast(array.dtype, np.float32, "same_kind"):
        raise ModelFileError(f"{name} must hold numbers, not {array.dtype}")
    return np.ascontiguousarray(array, np.float32)


def _few(names: Iterable[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:12]) + (", ..." if len(shown) > 12 else "") if shown else "none"

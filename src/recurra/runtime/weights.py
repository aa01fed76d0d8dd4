"""The weights of recurrent layers: found by name, of the shape that is needed, and none of them left unplayed."""

from collections.abc import Iterable, Mapping

import numpy as np

from recurra.errors import ModelFileError

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

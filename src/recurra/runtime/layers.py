"""The runtime's forward layers: numpy in, numpy out, no torch.

The promise: a row's result depends on nothing but that row, bit for bit. Whole sequence = any chunking = one step at a time = alone or
among others, whatever those hold (NaN included). So every product is summed in a fixed order in `recurra._core`, or, where that was
not built, in `recurra.runtime.plain` by elementwise numpy operations, slower and with its own rounding.
"""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from recurra.errors import DataError, ModelFileError, StateError, UnsupportedError
from recurra.runtime import plain
from recurra.runtime.bound import Bound, PlainStep

try:
    from recurra import _core
except ImportError:
    _core = None

COMPILED = _core is not None
"""Whether the C++ kernels are there."""

STATE_NAMES = {"lstm": ("h", "c"), "gru": ("h",), "rnn": ("h",), "rnn_tanh": ("h",), "rnn_relu": ("h",)}


class Recurrent:
    """A stack of causal recurrent layers.

    `cell`: "lstm", "gru", "rnn" (or "rnn_tanh", the same) or "rnn_relu". `weights`: torch's names and shapes, weight_ih_l0 [G*H, I],
    weight_hh_l0 [G*H, H], bias_ih_l0 and bias_hh_l0 [G*H] (both may be absent), and so on for each of the `layers`.

    It plays the plain cells, in eval mode: LayerNorm, peepholes and projections change the equations, and are refused by the names
    of their weights. Zoneout and coupled gates can't be seen in the weights: whoever exports a model must refuse them.

    Raises UnsupportedError for an unknown cell, ModelFileError where a weight is missing, has the wrong shape, or is none of these.
    """

    state_names: tuple[str, ...]

    def __init__(self, cell: str, weights: Mapping[str, np.ndarray], *, layers: int):
        if cell not in STATE_NAMES:
            raise UnsupportedError(f"the runtime plays the cells {', '.join(STATE_NAMES)}, not '{cell}'")
        if not _whole(layers) or layers < 1:
            raise ModelFileError(f"a stack has layers, a whole number from 1 on, not {layers!r}")
        _refuse_others(weights, [f"_l{k}" for k in range(layers)])
        self.cell = cell
        self.layers = layers
        self.state_names = STATE_NAMES[cell]
        self._kind = "rnn_tanh" if cell == "rnn" else cell
        self._stack = _stack(self._kind)
        self._weights: list[tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]] = []
        width = 0
        for k in range(layers):
            ih, hh = _matrix(weights, f"weight_ih_l{k}"), _matrix(weights, f"weight_hh_l{k}")
            hidden = hh.shape[1]
            if k == 0:
                self.inputs, self.hidden = ih.shape[1], hidden
            gates = plain.GATES[self._kind]
            want = {
                f"weight_ih_l{k}": (gates * self.hidden, width or self.inputs),
                f"weight_hh_l{k}": (gates * self.hidden, self.hidden),
            }
            for name, array in zip(want, (ih, hh), strict=True):
                if array.shape != want[name]:
                    raise ModelFileError(f"{name} of this {cell} must have shape {want[name]}, not {array.shape}")
            self._weights.append((ih, hh, _bias(weights, f"bias_ih_l{k}", ih), _bias(weights, f"bias_hh_l{k}", ih)))
            self._stack.add(*self._weights[-1])
            width = hidden

    def start(self, rows: int) -> tuple[np.ndarray, ...]:
        """The state before the first frame: zeros [layers, rows, H] float32, one array per name in `state_names`. Raises DataError."""
        if not _whole(rows) or rows < 0:
            raise DataError(f"rows must be a whole number from 0 on, not {rows!r}")
        return tuple(np.zeros((self.layers, rows, self.hidden), np.float32) for _ in self.state_names)

    def __call__(
        self, x: np.ndarray, state: tuple[np.ndarray, ...], lengths: np.ndarray | None = None
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """x [rows, T, I] and the state -> the top layer's output [rows, T, H] and the NEW state; the inputs are never changed.

        `lengths` [rows]: frames from there on give 0 and leave the state alone.
        Raises DataError for a wrong x or lengths, StateError for a wrong state.
        """
        x = _numbers(x, self.inputs)
        rows, frames, _ = x.shape
        shape = (self.layers, rows, self.hidden)
        if not isinstance(state, tuple | list) or len(state) != len(self.state_names):
            what = f"{len(state)} arrays" if isinstance(state, tuple | list) else type(state).__name__
            raise StateError(
                f"the state of {self.cell} is ({', '.join(self.state_names)}), not {what}: begin with start(rows)"
            )
        for name, part in zip(self.state_names, state, strict=True):
            if np.shape(part) != shape:
                raise StateError(f"state {name} must be {list(shape)}, not {list(np.shape(part))}")
        last = [np.ascontiguousarray(part, np.float32) for part in state]
        lengths = None if lengths is None else _lengths(lengths, rows, frames)
        y = np.empty((rows, frames, self.hidden), np.float32)
        new = tuple(np.empty(shape, np.float32) for _ in last)
        c, cn = (last[1], new[1]) if len(last) > 1 else (None, None)
        self._stack.run(x, lengths, last[0], c, y, new[0], cn)
        return y, new

    def bind(self, rows: int = 1, weights: str = "float32") -> Bound:
        """`rows` streams bound to buffers of their own, starting from zeros: a step is one call without arguments or copies.

        `weights`: "float32" gives the bits of calling the layers; "bfloat16" halves the memory that a step must read and "int8"
        quarters it, each with an error (see docs/benchmarks.md). They are packed anew, once, here.
        Raises DataError where rows is no number from 1 on; UnsupportedError for other weights, for int8 with rnn_relu, and for int8 where
        a weight is not finite.
        """
        if not _whole(rows) or rows < 1:
            raise DataError(f"rows must be a whole number from 1 on, not {rows!r}")
        if not isinstance(weights, str) or weights not in plain.MATRICES:
            raise UnsupportedError(f"weights must be one of {', '.join(plain.MATRICES)}, not {weights!r}")
        if weights == "int8" and self._kind == "rnn_relu":
            raise UnsupportedError("int8 needs |h| <= 1, which rnn_relu does not keep: use bfloat16 or float32")
        if weights == "int8" and not all(np.isfinite(part).all() for layer in self._weights for part in layer[:2]):
            raise UnsupportedError("int8 needs finite weights, these hold NaN or infinity: use bfloat16 or float32")
        x = np.zeros((rows, self.inputs), np.float32)
        state = self.start(int(rows))
        h, c = state[0], state[1] if len(state) > 1 else None
        make = PlainStep if _core is None else _core.Bound
        stack = make(self._kind, weights, x, h, c)
        for layer in self._weights:
            stack.add(*layer)
        y = h[-1].view()
        y.flags.writeable = False
        return Bound(x, y, h, c, stack.step)


class Bidirectional:
    """A stack of layers that read both ways: each is a forward and a backward `Recurrent` of one layer, side by side.

    `weights`: torch's names, those of the backward direction with "_reverse": weight_ih_l0, weight_ih_l0_reverse, ...
    Raises UnsupportedError and ModelFileError as `Recurrent` does.
    """

    def __init__(self, cell: str, weights: Mapping[str, np.ndarray], *, layers: int):
        self.cell = cell
        self.layers = layers
        self._pairs: list[tuple[Recurrent, Recurrent]] = []
        if not _whole(layers) or layers < 1:
            raise ModelFileError(f"a stack has layers, a whole number from 1 on, not {layers!r}")
        _refuse_others(weights, [f"_l{k}{back}" for k in range(layers) for back in ("", "_reverse")])
        for k in range(layers):
            ahead = {name[: -len(f"{k}")] + "0": value for name, value in weights.items() if name.endswith(f"_l{k}")}
            end = f"_l{k}_reverse"
            back = {name.removesuffix(end) + "_l0": value for name, value in weights.items() if name.endswith(end)}
            if not back:
                raise ModelFileError(f"the weight weight_ih_l{k}_reverse is missing: this layer reads one way only")
            self._pairs.append((Recurrent(cell, ahead, layers=1), Recurrent(cell, back, layers=1)))
            below, above = self._pairs[max(k - 1, 0)], self._pairs[k]
            width = above[0].inputs if k == 0 else 2 * below[0].hidden
            if above[1].hidden != above[0].hidden or {above[0].inputs, above[1].inputs} != {width}:
                raise ModelFileError(f"layer {k} must read {width} values in both directions, and give as many in each")
        self.inputs, self.hidden = self._pairs[0][0].inputs, self._pairs[0][0].hidden

    def __call__(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """x [rows, T, I] -> [rows, T, 2H], forward then backward; the backward direction starts at a row's own last frame.

        `lengths` [rows]: frames from there on give 0, whatever x holds there. Raises DataError for a wrong x or lengths.
        """
        x = _numbers(x, self.inputs)
        rows, frames, _ = x.shape
        lengths = np.full(rows, frames, np.int64) if lengths is None else _lengths(lengths, rows, frames)
        t = np.arange(frames)
        turned = np.where(t < lengths[:, None], lengths[:, None] - 1 - t, t)[:, :, None]
        for ahead, back in self._pairs:
            forward, _ = ahead(x, ahead.start(rows), lengths)
            backward, _ = back(np.take_along_axis(x, turned, 1), back.start(rows), lengths)
            x = np.concatenate([forward, np.take_along_axis(backward, turned, 1)], axis=2)
        return x


class Embedding:
    """Rows of weight [N, E] by their number."""

    def __init__(self, weight: np.ndarray):
        self._weight = np.ascontiguousarray(weight, np.float32)
        if self._weight.ndim != 2:
            raise ModelFileError(f"an embedding has weight [N, E], not {self._weight.shape}")
        self.size, self.outputs = self._weight.shape

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """ids [...] whole numbers -> [..., E] float32. Raises DataError for an id outside 0 ... N - 1."""
        ids = np.asarray(ids)
        if ids.size and (ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= self.size):
            bad = ids.dtype if ids.dtype.kind not in "iu" else ids[(ids < 0) | (ids >= self.size)][0]
            raise DataError(f"ids must be whole numbers between 0 and {self.size - 1}, not {bad}")
        return self._weight[ids.astype(np.int64)]


class Linear:
    """y = x @ weight.T + bias, with torch's layout weight [O, I], bias [O] or None; the same bits for a row in any batch."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None):
        weight = np.ascontiguousarray(weight, np.float32)
        if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
            shapes = f"{weight.shape}, {None if bias is None else bias.shape}"
            raise ModelFileError(f"a linear layer has weight [O, I] and bias [O], not {shapes}")
        self.outputs, self.inputs = weight.shape
        bias = None if bias is None else np.ascontiguousarray(bias, np.float32)
        self._map = plain.LinearMap(weight, bias) if _core is None else _core.LinearMap(weight, bias)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """x [..., I] -> [..., O] float32. Raises DataError for another last axis."""
        x = np.ascontiguousarray(x, np.float32)
        if x.ndim < 1 or x.shape[-1] != self.inputs:
            raise DataError(f"x must be [..., {self.inputs}], not {list(x.shape)}")
        flat = x.reshape(int(np.prod(x.shape[:-1])), self.inputs)
        y = np.empty((flat.shape[0], self.outputs), np.float32)
        self._map.run(flat, y)
        return y.reshape(*x.shape[:-1], self.outputs)


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0), elementwise; NaN stays NaN."""
    return np.maximum(x, np.float32(0))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x), elementwise, float32."""
    return plain.sigmoid(np.asarray(x, np.float32))


def tanh(x: np.ndarray) -> np.ndarray:
    """Elementwise, float32."""
    return plain.tanh(np.asarray(x, np.float32))


def softmax(x: np.ndarray) -> np.ndarray:
    """e^x over its sum along the last axis, float32; -inf gives 0. The sum folds the axis in halves: one order, whatever the batch."""
    x = np.asarray(x, np.float32)
    if not x.shape[-1]:
        return x
    powers = plain.exp(x - x.max(-1, keepdims=True))
    total = powers
    while total.shape[-1] > 1:
        half = total.shape[-1] // 2
        odd = total[..., 2 * half :]
        total = np.concatenate([total[..., :half] + total[..., half : 2 * half], odd], -1)
    return powers / total


def _stack(cell: str):
    if _core is not None:
        return _core.Stack(cell)
    warnings.warn(
        "recurra._core (C++) is not installed, so the runtime uses numpy, many times slower: reinstall with a C++20 compiler",
        RuntimeWarning,
        stacklevel=3,
    )
    return plain.Stack(cell)


def _whole(number: object) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def _numbers(x: np.ndarray, inputs: int) -> np.ndarray:
    """x as float32 [rows, T, inputs]. Raises DataError."""
    try:
        x = np.ascontiguousarray(x, np.float32)
    except (TypeError, ValueError):
        raise DataError(f"x must be numbers [rows, frames, {inputs}], not {str(x)[:40]!r}") from None
    if x.ndim != 3 or x.shape[2] != inputs:
        raise DataError(f"x must be [rows, frames, {inputs}], not {list(x.shape)}")
    return x


def _lengths(lengths: np.ndarray, rows: int, frames: int) -> np.ndarray:
    """int64 [rows]. Raises DataError."""
    found = np.asarray(lengths)
    whole = found.dtype.kind in "iu" or not found.size
    if not whole or found.shape != (rows,) or (rows and (found.min() < 0 or found.max() > frames)):
        raise DataError(f"lengths must be {rows} whole numbers between 0 and {frames}, not {str(found.tolist())[:60]}")
    return np.ascontiguousarray(found, np.int64)


def _refuse_others(weights: Mapping[str, np.ndarray], ends: Sequence[str]) -> None:
    """Raises ModelFileError where a weight is none of a plain layer's whose names end so: dropped, the answer would be wrong."""
    known = {f"{name}{end}" for end in ends for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    others = sorted(set(weights) - known)
    if others:
        raise ModelFileError(
            f"the runtime plays no weight '{others[0]}' here: these layers have {', '.join(sorted(known))}; give the right number of "
            "layers and directions, and train without what adds others (LayerNorm, peepholes, projections)"
        )


def _matrix(weights: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in weights:
        raise ModelFileError(f"the weight {name} is missing; there are {', '.join(sorted(weights)) or 'none'}")
    array = np.ascontiguousarray(weights[name], np.float32)
    if array.ndim != 2:
        raise ModelFileError(f"{name} must be a matrix, not of shape {array.shape}")
    return array


def _bias(weights: Mapping[str, np.ndarray], name: str, like: np.ndarray) -> np.ndarray | None:
    if name not in weights:
        return None
    array = np.ascontiguousarray(weights[name], np.float32)
    if array.shape != like.shape[:1]:
        raise ModelFileError(f"{name} must have shape {like.shape[:1]}, not {array.shape}")
    return array

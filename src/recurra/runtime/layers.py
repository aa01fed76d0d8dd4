"""The runtime's forward layers: numpy in, numpy out, no torch.

The promise: a row's result depends on nothing but that row, bit for bit. Whole sequence = any chunking = one step at a time = alone or
among others, whatever those hold (NaN included). So every product is summed in a fixed order in `recurra._core`, or, where that was
not built, in `recurra.runtime.plain` by elementwise numpy operations, slower and with its own rounding.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recurra.errors import DataError, ModelFileError, StateError, UnsupportedError
from recurra.runtime import plain
from recurra.runtime.bound import Bound, PlainStep
from recurra.runtime.weights import bias, matrix, refuse_further

try:
    from recurra import _core
except ImportError:
    _core = None

COMPILED = _core is not None
"""Whether the C++ kernels are there."""

PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
STATE_NAMES = {"lstm": ("h", "c"), "gru": ("h",), "rnn": ("h",), "rnn_tanh": ("h",), "rnn_relu": ("h",)}


class Recurrent:
    """A stack of causal recurrent layers.

    `cell`: "lstm", "gru", "rnn" (or "rnn_tanh", the same) or "rnn_relu". `weights`: torch's names and shapes, weight_ih_l0 [G*H, I],
    weight_hh_l0 [G*H, H], bias_ih_l0 and bias_hh_l0 [G*H] (both may be absent), and so on for each of the `layers`.

    It plays torch's equations. Dropout of any kind acts in training alone, so there is nothing to play. Layer norm, peepholes, coupled
    gates and projections are not played, and refused by their weights. Zoneout leaves none: a layer that was trained with it mixes old and
    new state also when it is used, which the runtime doesn't know and doesn't do.

    Raises UnsupportedError for an unknown cell, ModelFileError where a weight is missing, has the wrong shape or is none of these.
    """

    state_names: tuple[str, ...]

    def __init__(self, cell: str, weights: Mapping[str, np.ndarray], *, layers: int):
        if not isinstance(cell, str) or cell not in STATE_NAMES:
            raise UnsupportedError(f"the runtime plays the cells {', '.join(STATE_NAMES)}, not {cell!r}")
        _check_layers(layers)
        self.cell = cell
        self.layers = layers
        self.state_names = STATE_NAMES[cell]
        self._kind = "rnn_tanh" if cell == "rnn" else cell
        self._stack = _stack(self._kind)
        self._weights: list[tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]] = []
        width = 0
        for k in range(layers):
            ih, hh = matrix(weights, f"weight_ih_l{k}"), matrix(weights, f"weight_hh_l{k}")
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
            of_x, of_h = (bias(weights, f"bias_{of}_l{k}", len(ih)) for of in ("ih", "hh"))
            self._weights.append((ih, hh, of_x, of_h))
            self._stack.add(*self._weights[-1])
            width = hidden
        refuse_further(weights, [f"{part}_l{k}" for part in PARTS for k in range(layers)], layers)

    def start(self, rows: int) -> tuple[np.ndarray, ...]:
        """The state before the first frame: zeros [layers, rows, H] float32, one array per name in `state_names`.

        Raises DataError where rows is no whole number from 0 on.
        """
        if not _whole(rows) or rows < 0:
            raise DataError(f"rows must be a whole number from 0 on, not {rows!r}")
        return tuple(np.zeros((self.layers, rows, self.hidden), np.float32) for _ in self.state_names)

    def __call__(
        self, x: np.ndarray, state: tuple[np.ndarray, ...], lengths: np.ndarray | None = None
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """x [rows, T, I] and the state -> the top layer's output [rows, T, H] and the NEW state; the inputs are never changed.

        `lengths` [rows], whole numbers: frames from there on give 0 and leave the state alone.
        Raises DataError for a wrong x or lengths, StateError for a wrong state.
        """
        x = _numbers(x, "x")
        if x.ndim != 3 or x.shape[2] != self.inputs:
            raise DataError(f"x must be [rows, frames, {self.inputs}], not {list(x.shape)}")
        rows, frames, _ = x.shape
        shape = (self.layers, rows, self.hidden)
        if not isinstance(state, tuple | list) or len(state) != len(self.state_names):
            found = f"{len(state)} arrays" if isinstance(state, tuple | list) else type(state).__name__
            raise StateError(
                f"the state of {self.cell} is ({', '.join(self.state_names)}), not {found}: begin with start(rows)"
            )
        last = [_numbers(part, f"state {name}", StateError) for name, part in zip(self.state_names, state, strict=True)]
        for name, part in zip(self.state_names, last, strict=True):
            if part.shape != shape:
                raise StateError(f"state {name} must be {list(shape)}, not {list(part.shape)}")
        if lengths is not None:
            lengths = _lengths(lengths, rows, frames)
        y = np.empty((rows, frames, self.hidden), np.float32)
        new = tuple(np.empty(shape, np.float32) for _ in last)
        c, cn = (last[1], new[1]) if len(last) > 1 else (None, None)
        self._stack.run(x, lengths, last[0], c, y, new[0], cn)
        return y, new

    def bind(self, rows: int = 1, weights: str = "float32") -> Bound:
        """`rows` streams bound to buffers of their own, starting from zeros: a step is one call without arguments or copies.

        `weights`: "float32" gives the bits of calling the layers; "bfloat16" halves the memory that a step must read and "int8"
        quarters it, each with an error (see docs/benchmarks.md). They are packed anew, once, here. int8 takes an h beyond [-1, 1]
        as -1 or 1: the layers never make one, a state that the caller sets may hold one.
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
        _check_layers(layers)
        self.cell = cell
        self.layers = layers
        self._pairs: list[tuple[Recurrent, Recurrent]] = []
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
        ends = tuple(f"_l{k}{end}" for k in range(layers) for end in ("", "_reverse"))
        refuse_further(weights, [name for name in weights if name.endswith(ends)], layers)
        self.inputs, self.hidden = self._pairs[0][0].inputs, self._pairs[0][0].hidden

    def __call__(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """x [rows, T, I] -> [rows, T, 2H], forward then backward; the backward direction starts at a row's own last frame.

        `lengths` [rows]: frames from there on give 0, whatever x holds there. Raises DataError for a wrong x or lengths.
        """
        x = _numbers(x, "x")
        if x.ndim != 3 or x.shape[2] != self.inputs:
            raise DataError(f"x must be [rows, frames, {self.inputs}], not {list(x.shape)}")
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
        x = _numbers(x, "x")
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


def log_softmax(x: np.ndarray) -> np.ndarray:
    """x [..., V] float32 -> x - log sum exp x, float32. The sum of a row is in double precision and in the row's own order."""
    if _core is not None:
        flat = np.ascontiguousarray(x, np.float32).reshape(-1, x.shape[-1])
        y = np.empty_like(flat)
        _core.log_softmax(flat, y)
        return y.reshape(x.shape)
    x = x - x.max(axis=-1, keepdims=True)
    total = np.exp(x).sum(axis=-1, keepdims=True, dtype=np.float64)
    x -= np.log(total).astype(np.float32)
    return x


def attend(
    query: np.ndarray,
    keys: Sequence[np.ndarray],
    values: Sequence[np.ndarray],
    of: np.ndarray,
    *,
    v: np.ndarray | None,
    scale: float,
    past: np.ndarray | None,
    cover: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Each query [n, A] put to the keys [S, A] and values [S, M] of its number in `of` [n] -> context [n, M] and weights [n, most S],
    0 behind a memory's end; None where recurra._core is not installed.

    v [A]: the score is scale * v . tanh(query + key [+ past * cover]), past [n, most S] and cover [A]; None: scale * query . key.
    """
    if _core is None:
        return None
    weights = np.empty((len(query), max(map(len, keys))), np.float32)
    context = np.empty((len(query), values[0].shape[1]), np.float32)
    seen = None if past is None or cover is None else np.ascontiguousarray(past[:, : weights.shape[1]])
    query, of = np.ascontiguousarray(query, np.float32), np.ascontiguousarray(of, np.int64)
    _core.attend(query, list(keys), list(values), of, v, scale, seen, cover, weights, context)
    return context, weights


def _stack(cell: str):
    if _core is not None:
        return _core.Stack(cell)
    warnings.warn(
        "recurra._core (C++) is not installed, so the runtime uses numpy, many times slower: reinstall with a C++20 compiler",
        RuntimeWarning,
        stacklevel=3,
    )
    return plain.Stack(cell)


def _whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _check_layers(layers: Any) -> None:
    if not _whole(layers) or layers < 1:
        raise ModelFileError(f"a stack has a whole number of layers, at least 1, not {layers!r}")


def _numbers(value: Any, name: str, error: type[DataError | StateError] = DataError) -> np.ndarray:
    """float32, contiguous; what is no real number is refused."""
    try:
        array = np.asarray(value)
    except ValueError:  # lists of unequal lengths
        raise error(f"{name} must be an array of numbers, not a ragged {type(value).__name__}") from None
    if not np.can_cast(array.dtype, np.float32, "same_kind"):
        raise error(f"{name} must be an array of numbers, not of {array.dtype}")
    return np.ascontiguousarray(array, np.float32)


def _lengths(value: Any, rows: int, frames: int) -> np.ndarray:
    """[rows] int64, checked."""
    try:
        lengths = np.asarray(value)
    except ValueError:
        lengths = np.asarray(None)
    fits = lengths.shape == (rows,) and (not rows or lengths.dtype.kind in "iu")
    if not fits or (rows and (lengths.min() < 0 or lengths.max() > frames)):
        raise DataError(
            f"lengths must be {rows} whole number(s) between 0 and {frames}, not {' '.join(str(value).split())[:60]}"
        )
    return np.ascontiguousarray(lengths, np.int64)

"""What `recurra._core` does for the runtime, in numpy, for an installation without a compiler.

Only elementwise operations that IEEE 754 rounds exactly (+ - * /), looped over k in order: numpy's `@`, `exp` and `tanh` may give a
row other bits in another batch, these can't. The equations are those of `recurra.cells`.
"""

import math

import numpy as np

GATES = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3}


def product(x: np.ndarray, weight_t: np.ndarray, start: np.ndarray) -> np.ndarray:
    """start + x @ weight_t: x [rows, K], weight_t [K, O], start [O] or [rows, O] -> [rows, O], summed over k in order."""
    total = np.array(np.broadcast_to(start, (x.shape[0], weight_t.shape[1])), np.float32)
    for k in range(weight_t.shape[0]):
        total += x[:, k, None] * weight_t[k]
    return total


class Float32:
    """A matrix weight [O, K] as it is."""

    def __init__(self, weight: np.ndarray):
        self._weight_t = weight.T.copy()

    def __call__(self, x: np.ndarray, start: np.ndarray) -> np.ndarray:
        """start + x @ weight.T"""
        return product(x, self._weight_t, start)


class BFloat16(Float32):
    """A matrix rounded to bfloat16 (8 bits of mantissa), to nearest, ties to even."""

    def __init__(self, weight: np.ndarray):
        bits = np.ascontiguousarray(weight, np.float32).view(np.uint32)
        rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) & np.uint32(0xFFFF0000)
        super().__init__(np.where(np.isnan(weight), weight, rounded.view(np.float32)))


class Int8:
    """A matrix as integers q: row o is q[o] * scale[o], |q| <= 127. What it multiplies, |x| <= 1, is taken as round(127 x) / 127."""

    def __init__(self, weight: np.ndarray):
        unit = np.abs(weight).max(1) / np.float32(127)
        unit = np.where(unit > 0, unit, np.float32(1))
        self._q_t = np.rint(weight / unit[:, None]).astype(np.int32).T.copy()
        self._scale = unit / np.float32(127)

    def __call__(self, x: np.ndarray, start: np.ndarray) -> np.ndarray:
        """start + x @ weight.T, the sums of integers exact; a row of x with NaN gives NaN."""
        bad = np.isnan(x)
        q = np.rint(np.clip(np.where(bad, 0, x), -1, 1) * np.float32(127)).astype(np.int32)
        total = (q @ self._q_t).astype(np.float32) * self._scale + start
        return np.where(bad.any(1, keepdims=True), np.float32(np.nan), total)


MATRICES = {"float32": Float32, "bfloat16": BFloat16, "int8": Int8}


def _exp_parts(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(2^n, e^r - 1) with x = n ln 2 + r, so that e^x = 2^n + 2^n (e^r - 1)."""
    n = np.rint(x * np.float32(1.44269504))
    r = (x - n * np.float32(0.693359375)) - n * np.float32(-2.12194440e-4)
    part = np.full_like(r, 1 / math.factorial(7))
    for i in range(6, 0, -1):
        part = part * r + np.float32(1 / math.factorial(i))
    exponent = np.where(np.isnan(n), 0, n).astype(np.int32) + 127
    return (exponent << 23).view(np.float32), part * r


def exp(x: np.ndarray) -> np.ndarray:
    """e^x for x <= 0, float32; below -87, where a float32 loses its precision, 0."""
    scale, part = _exp_parts(np.clip(x, -87, 0))
    return np.where(x < -87, np.float32(0), scale * part + scale)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x), float32."""
    scale, part = _exp_parts(-np.clip(x, -87, 87))
    return np.float32(1) / (np.float32(1) + (scale * part + scale))


def tanh(x: np.ndarray) -> np.ndarray:
    """(e^2x - 1) / (e^2x + 1), float32."""
    x = np.clip(x, -10, 10)
    scale, part = _exp_parts(x + x)
    m = scale * part + (scale - np.float32(1))
    return m / (m + np.float32(2))


class Stack:
    """`recurra._core.Stack` in numpy."""

    def __init__(self, cell: str, weights: str = "float32"):
        self.cell = cell
        self.weights = weights
        self._layers: list[tuple[Float32 | Int8, Float32 | Int8, np.ndarray, np.ndarray]] = []

    def add(self, ih: np.ndarray, hh: np.ndarray, bias_ih: np.ndarray | None, bias_hh: np.ndarray | None) -> None:
        """Put a layer on top: torch's shapes."""
        none = np.zeros(ih.shape[0], np.float32)
        matrix = MATRICES[self.weights]
        # the first x may be of any size, so int8 is not for it
        of_x = Float32 if matrix is Int8 and not self._layers else matrix
        self._layers.append(
            (of_x(ih), matrix(hh), none if bias_ih is None else bias_ih, none if bias_hh is None else bias_hh)
        )

    def run(
        self,
        x: np.ndarray,
        lengths: np.ndarray | None,
        h: np.ndarray,
        c: np.ndarray | None,
        y: np.ndarray,
        hn: np.ndarray,
        cn: np.ndarray | None,
    ) -> None:
        """Fill y [rows, T, H], hn and cn [layers, rows, H]."""
        for k, layer in enumerate(self._layers):
            state = (h[k], None if c is None else c[k])
            out = np.zeros_like(y)
            for t in range(x.shape[1]):
                live = None if lengths is None else (t < lengths)[:, None]
                # x of the padding may hold anything
                frame = x[:, t] if live is None else np.where(live, x[:, t], np.float32(0))
                new = self._step(layer, frame, *state)
                if live is None:
                    out[:, t], state = new[0], new
                else:
                    out[:, t] = np.where(live, new[0], np.float32(0))
                    memory = None if new[1] is None or state[1] is None else np.where(live, new[1], state[1])
                    state = (np.where(live, new[0], state[0]), memory)
            hn[k] = state[0]
            if cn is not None:
                cn[k] = state[1]
            x = out
        y[:] = x

    def _step(
        self,
        layer: tuple[Float32 | Int8, Float32 | Int8, np.ndarray, np.ndarray],
        x: np.ndarray,
        h: np.ndarray,
        c: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        ih, hh, bias_ih, bias_hh = layer
        from_x = ih(x, bias_ih)
        if self.cell == "gru":
            xr, xz, xn = np.split(from_x, 3, 1)
            hr, hz, hidden_n = np.split(hh(h, bias_hh), 3, 1)
            z = sigmoid(xz + hz)
            return (1 - z) * tanh(xn + sigmoid(xr + hr) * hidden_n) + z * h, None
        total = hh(h, from_x + bias_hh)
        if self.cell == "lstm" and c is not None:
            i, f, g, o = np.split(total, 4, 1)
            memory = sigmoid(f) * c + sigmoid(i) * tanh(g)
            return sigmoid(o) * tanh(memory), memory
        return (tanh(total) if self.cell == "rnn_tanh" else np.maximum(total, np.float32(0))), None


class LinearMap:
    """`recurra._core.LinearMap` in numpy."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None):
        self._weight_t = weight.T.copy()
        self._bias = np.zeros(weight.shape[0], np.float32) if bias is None else bias

    def run(self, x: np.ndarray, y: np.ndarray) -> None:
        """x [rows, I] -> fill y [rows, O]."""
        y[:] = product(x, self._weight_t, self._bias)

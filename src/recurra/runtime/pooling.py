"""Pooling: many frames of a row become one vector, frame after frame in order.

    last    the newest frame (of a backward direction: the first frame, where it ends)
    max     the largest value of each unit
    mean    the sum of the frames over their number
    attention   sum_t a_t y_t,  a = softmax_t(score(y_t)); the weights are scaled anew where a larger score comes
                (Milakov and Gimelshein 2018), so that no frame is needed twice

What it remembers is a few arrays a row, so a row's result is the same bits at once, in pieces, frame by frame, alone or among others.
"""

from collections.abc import Callable

import numpy as np

from recurra.errors import ModelFileError
from recurra.runtime import plain

PARTS = {
    "last": ("last",),
    "max": ("max",),
    "mean": ("mean",),
    "attention": ("attention",),
    "concat": ("last", "max", "mean"),  # Howard and Ruder 2018
}

Pooled = dict[str, np.ndarray]


class Pooling:
    """Pools frames of `width` values. kind: a key of PARTS. backward: how many of the values, at the end, read backwards.

    score: frames [..., width] -> [..., 1], for attention only.
    """

    def __init__(
        self,
        kind: str,
        width: int,
        *,
        backward: int = 0,
        score: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        if kind not in PARTS:
            raise ModelFileError(f"the runtime pools by {', '.join(PARTS)}, not '{kind}'")
        if kind == "attention" and score is None:
            raise ModelFileError("pooling by attention needs its scores")
        self.parts = PARTS[kind]
        self.width = width
        self.outputs = width * len(self.parts)
        self._ahead = width - backward
        self._score = score

    def start(self, rows: int) -> Pooled:
        """What is remembered before the first frame, each array [rows, ...]."""
        shape = (rows, self.width)
        state: Pooled = {"frames": np.zeros(rows, np.int64)}
        if "last" in self.parts:
            state["last"] = np.zeros(shape, np.float32)
        if "max" in self.parts:
            state["max"] = np.full(shape, -np.inf, np.float32)
        if "mean" in self.parts:
            state["sum"] = np.zeros(shape, np.float64)
        if "attention" in self.parts:
            state["top"] = np.full(rows, -np.inf, np.float32)
            state["weight"] = np.zeros(rows, np.float64)
            state["sum"] = np.zeros(shape, np.float64)
        return state

    def __call__(self, state: Pooled, y: np.ndarray, lengths: np.ndarray | None = None) -> Pooled:
        """Take the frames y [rows, T, width], of which `lengths` [rows] are valid, and return the NEW state."""
        rows, frames, _ = y.shape
        new = {name: array.copy() for name, array in state.items()}
        if not frames or not rows:
            return new
        lengths = np.full(rows, frames, np.int64) if lengths is None else np.asarray(lengths, np.int64)
        if "last" in new:
            self._last(new, state["frames"], y, lengths)
        scores = self._score(y)[..., 0] if self._score is not None and "top" in new else None
        if "max" in new or "sum" in new:
            for t in range(int(lengths.max())):
                live = (t < lengths)[:, None]
                frame = np.where(live, y[:, t], np.float32(0))
                if "max" in new:
                    new["max"] = np.where(live, np.maximum(new["max"], frame), new["max"])
                if scores is not None:
                    self._attend(new, frame, np.where(live[:, 0], scores[:, t], -np.inf), live)
                elif "sum" in new:
                    new["sum"] += frame
        new["frames"] += lengths
        return new

    def read(self, state: Pooled) -> np.ndarray:
        """The pooled vectors [rows, outputs] float32; zeros for a row without a frame."""
        frames = state["frames"][:, None]
        found = []
        for part in self.parts:
            if part == "last":
                found.append(state["last"])
            elif part == "max":
                # + 0: the sign of a largest value 0 depends on how numpy walks through the array
                found.append(np.where(frames > 0, state["max"], np.float32(0)) + np.float32(0))
            else:
                weight = state["weight"][:, None] if part == "attention" else frames
                mean = np.divide(state["sum"], weight, out=np.zeros_like(state["sum"]), where=frames > 0)
                found.append(mean.astype(np.float32))
        return np.concatenate(found, axis=1)

    def _last(self, new: Pooled, seen: np.ndarray, y: np.ndarray, lengths: np.ndarray) -> None:
        newest = y[np.arange(len(y)), np.maximum(lengths - 1, 0), : self._ahead]
        some = (lengths > 0)[:, None]
        new["last"][:, : self._ahead] = np.where(some, newest, new["last"][:, : self._ahead])
        first = some & (seen == 0)[:, None]
        new["last"][:, self._ahead :] = np.where(first, y[:, 0, self._ahead :], new["last"][:, self._ahead :])

    @staticmethod
    def _attend(new: Pooled, frame: np.ndarray, score: np.ndarray, live: np.ndarray) -> None:
        score = score.astype(np.float32)
        top = np.maximum(new["top"], score)
        with np.errstate(invalid="ignore"):  # -inf - -inf, before the first frame
            kept = np.where(new["top"] == -np.inf, np.float32(0), plain.exp(new["top"] - top))
            weight = np.where(score == -np.inf, np.float32(0), plain.exp(score - top))
        alive = live[:, 0]
        new["weight"] = np.where(alive, new["weight"] * kept + weight, new["weight"])
        total = new["sum"] * kept[:, None] + weight[:, None] * frame
        new["sum"] = np.where(live, total, new["sum"])
        new["top"] = np.where(alive, top, new["top"])

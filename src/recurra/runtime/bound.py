"""Live streams bound to their buffers: write x, call `step`, read y."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recurra.runtime import plain


@dataclass(frozen=True, eq=False, slots=True)
class Bound:
    """Streams in step with each other, one a row; made by `Recurrent.bind`.

        bound.x[:] = frame
        bound.step()
        use(bound.y)

    A row's result depends on that row alone. The arrays are the buffers themselves and stay the same ones: copy them to save the
    state, write into them to restore it, or to let row b start anew (`bound.h[:, b] = 0`). One thread at a time.
    """

    x: np.ndarray
    """[rows, I] float32: the frame to read; the caller's to fill."""
    y: np.ndarray
    """[rows, H] float32: the output. It is h of the top layer, for reading only."""
    h: np.ndarray
    """[layers, rows, H] float32. With int8 weights a step reads an h beyond [-1, 1] as -1 or 1, without a word."""
    c: np.ndarray | None
    """[layers, rows, H] float32 for lstm, else None."""
    step: Callable[[], None]
    """Read x and the state, and replace the state: no arguments, nothing allocated."""

    @property
    def state(self) -> tuple[np.ndarray, ...]:
        """(h, c) or (h,), as `Recurrent` takes and gives it: the buffers themselves, not a copy."""
        return (self.h,) if self.c is None else (self.h, self.c)


class PlainStep:
    """`recurra._core.Bound` in numpy."""

    def __init__(self, cell: str, weights: str, x: np.ndarray, h: np.ndarray, c: np.ndarray | None):
        self._stack = plain.Stack(cell, weights)
        self._x, self._h, self._c = x[:, None], h, c

    def add(self, ih: np.ndarray, hh: np.ndarray, bias_ih: np.ndarray | None, bias_hh: np.ndarray | None) -> None:
        """Put a layer on top: torch's shapes."""
        self._stack.add(ih, hh, bias_ih, bias_hh)

    def step(self) -> None:
        """Read x, replace h and c."""
        y = np.empty((self._x.shape[0], 1, self._h.shape[2]), np.float32)
        self._stack.run(self._x, None, self._h, self._c, y, self._h, self._c)

"""The codec of numeric series that are classified: each channel by the mean and spread of the training part; NaN is missing."""

from collections.abc import Iterable

import numpy as np
from pydantic import BaseModel, ConfigDict

from recurra.errors import DataError

FAR = 1e3  # a standardised value is held to this: one broken number must not outweigh a series


class ValuesCodec(BaseModel):
    """mean, scale: of each channel. flags: a missing value (NaN) becomes the mean, and with flags a second channel says where.
    together: how many steps make one frame, side by side; the last one of a series is filled with its last step again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    flags: bool
    together: int = 1

    @property
    def channels(self) -> int:
        """Numbers of a step, as given."""
        return len(self.mean)

    @property
    def features(self) -> int:
        """Numbers of a frame, as the network sees it."""
        return self.channels * (2 if self.flags else 1) * self.together

    def encode(self, values: np.ndarray) -> np.ndarray:
        """values [..., T, channels] (one channel: [T] too) -> float32 [..., T / together, features], T rounded up.

        Raises DataError: infinite, another number of channels.
        """
        values = shaped(values)
        if values.shape[-1] != self.channels:
            raise DataError(f"a step has {self.channels} value(s), not {values.shape[-1]}")
        known = ~np.isnan(values)
        z = np.where(known, (values - np.asarray(self.mean)) / np.asarray(self.scale), 0.0).clip(-FAR, FAR)
        z = (np.concatenate([z, ~known], axis=-1) if self.flags else z).astype(np.float32)
        lacking = -z.shape[-2] % self.together
        if lacking:
            z = np.concatenate([z, np.repeat(z[..., -1:, :], lacking, axis=-2)], axis=-2)
        return z.reshape(*z.shape[:-2], z.shape[-2] // self.together, self.features)


def fit(rows: Iterable[np.ndarray], *, frames: int | None = None) -> ValuesCodec:
    """The codec of the training series `rows`, each [T, channels] or [T].

    frames: how many frames the longest of them has at most; none: a frame is a step. Raises DataError: no series, infinite, unequal
    channels.
    """
    count = total = square = None
    flags, longest = False, 0
    for i, row in enumerate(rows):
        row = shaped(row)
        known = ~np.isnan(row)
        filled = np.where(known, row, 0.0)
        if count is None or total is None or square is None:
            count, total, square = (np.zeros(row.shape[1]) for _ in range(3))
        elif len(count) != row.shape[1]:
            raise DataError(f"series {i + 1} has {row.shape[1]} value(s) a step, those before have {len(count)}")
        flags, longest = flags or not known.all(), max(longest, len(row))
        count += known.sum(0)
        total += filled.sum(0)
        square += (filled**2).sum(0)
    if count is None or total is None or square is None:
        raise DataError("there is no series to learn from")
    mean = total / np.maximum(count, 1)
    spread = np.sqrt(np.maximum(square / np.maximum(count, 1) - mean**2, 0.0))
    scale = np.where(spread > 1e-12 * np.maximum(np.abs(mean), 1e-300), spread, 1.0)  # a constant channel says nothing
    together = 1 if frames is None else max(1, -(-longest // frames))
    return ValuesCodec(mean=tuple(mean.tolist()), scale=tuple(scale.tolist()), flags=flags, together=together)


def shaped(values: np.ndarray) -> np.ndarray:
    """A series as float64 [..., T, channels]. Raises DataError: no numbers, infinite."""
    try:
        values = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise DataError(f"a series must be numbers (NaN where missing), not {str(values)[:60]!r}") from None
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim < 2:
        raise DataError("a series must be a list of numbers, or of steps with a number a channel")
    if np.isinf(values).any():
        raise DataError(f"a series holds {values[np.isinf(values)][0]}: leave it missing (NaN) where it is unknown")
    return values

"""What a forecaster answers."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Prediction:
    """y_hat [rows, horizon]; quantiles [rows, horizon, len(levels)]; levels: their probabilities."""

    y_hat: np.ndarray
    quantiles: np.ndarray
    levels: tuple[float, ...]


class Backtest(NamedTuple):
    """The forecasts of one series at its origins. series: its index in the panel; values [T]: what was observed; origins [O]: how many rows
    had been seen; prediction: [O, horizon], for the rows origins[o], origins[o] + 1, ...
    """

    series: int
    values: np.ndarray
    origins: np.ndarray
    prediction: Prediction

    def last(self, rows: int) -> "Backtest":
        """The origins within the last `rows` rows alone."""
        keep = self.origins >= len(self.values) - rows
        found = self.prediction
        return self._replace(
            origins=self.origins[keep], prediction=Prediction(found.y_hat[keep], found.quantiles[keep], found.levels)
        )

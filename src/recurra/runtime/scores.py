"""Scores of forecasts beside the naive floors: a score without its floor is not a result."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from recurra import metrics
from recurra.runtime.prediction import Backtest


@dataclass(frozen=True)
class Scores:
    """rows: "model", "naive", ... -> metric -> mean over series (each first averaged over its origins). season: m of MASE.

    smape, mase, owa by M4's definitions; wql: sum of 2 x quantile loss over sum of |y|, all series together; crps: mean over the levels of
    2 x quantile loss, in the unit of y; coverage: share of values inside the widest interval, whose nominal share is `nominal`.
    What is not defined is NaN: the MASE of a series with a constant history is left out of the mean.
    """

    rows: dict[str, dict[str, float]]
    season: int
    nominal: float
    series: int
    origins: int
    skipped: int

    def to_json(self) -> dict[str, Any]:
        """As JSON-able data; what is not defined is null."""
        rows = {
            name: {key: None if np.isnan(value) else value for key, value in row.items()}
            for name, row in self.rows.items()
        }
        nominal = None if np.isnan(self.nominal) else self.nominal
        return {**vars(self), "nominal": nominal, "rows": rows}


def score(
    forecasts: Iterable[Backtest],
    levels: tuple[float, ...],
    m: int,
    *,
    skipped: int,
    naive2: bool,
) -> Scores:
    """Score the forecasts of each series; `naive2` adds M4's floor and OWA (one origin a series)."""
    names = ["model", "naive", "seasonal naive", *(["naive2"] if naive2 else [])]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    quantile, origins = metrics.QuantileScores(levels), 0
    for _, y, at, prediction in forecasts:
        h = prediction.y_hat.shape[1]
        actual = y[at[:, None] + np.arange(h)]
        if np.isnan(actual).all():
            continue
        rows = {"model": prediction.y_hat} | floors(y, at, h, m)
        if naive2:
            rows["naive2"] = np.stack([metrics.naive2(y[:t], h, m) for t in at])
        for name, forecast in rows.items():
            found[name].append(
                {"smape": metrics.smape(actual, forecast), "mase": metrics.mase(actual, forecast, y, m, at)}
            )
        origins += len(at)
        quantile.add(actual, prediction.quantiles)
    table = {
        name: {key: metrics.average([row[key] for row in rows]) for key in ("smape", "mase")}
        for name, rows in found.items()
    }
    nan = float("nan")
    for row in table.values():
        row["owa"] = (
            metrics.owa(row["smape"], row["mase"], table["naive2"]["smape"], table["naive2"]["mase"]) if naive2 else nan
        )
        row |= dict.fromkeys(("wql", "crps", "coverage"), nan)
    table["model"] |= {"wql": quantile.wql, "crps": quantile.crps, "coverage": quantile.coverage}
    return Scores(table, m, quantile.nominal, len(found["model"]), origins, skipped)


def floors(y: np.ndarray, at: np.ndarray, h: int, m: int) -> dict[str, np.ndarray]:
    """Naive and seasonal naive forecasts at each origin, [O, h]."""
    return {"naive": metrics.naive(y, h, at), "seasonal naive": metrics.seasonal_naive(y, h, m, at)}

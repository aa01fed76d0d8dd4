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
            name: {key: None if np.isnan(value) else round(value, 6) for key, value in row.items()}
            for name, row in self.rows.items()
        }
        return {**{k: v for k, v in vars(self).items() if k != "rows"}, "rows": rows}


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
    sums: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    loss, size, inside, count, origins = np.zeros(len(levels)), 0.0, 0.0, 0, 0
    for _, y, at, prediction in forecasts:
        h = prediction.y_hat.shape[1]
        ahead = at[:, None] + np.arange(h)
        actual = y[ahead]
        seen = np.isfinite(actual)
        if not seen.any():
            continue
        scale = scales(y, m)[at - 1][:, None]
        rows = {"model": prediction.y_hat} | floors(y, at, h, m)
        if naive2:
            rows["naive2"] = np.stack([metrics.naive2(_known(y[:t]), h, m) for t in at])
        for name, forecast in rows.items():
            sums[name].append(_row(actual, forecast, scale))
        origins += len(at)
        if levels:
            error = actual[..., None] - prediction.quantiles
            each = 2.0 * np.maximum(np.asarray(levels) * error, (np.asarray(levels) - 1.0) * error)
            loss += np.nansum(each, axis=(0, 1))
            low, high = prediction.quantiles[..., 0], prediction.quantiles[..., -1]
            inside += float(((actual >= low) & (actual <= high) & seen).sum())
        size += float(np.nansum(np.abs(actual)))
        count += int(seen.sum())
    table = {
        name: {key: metrics.average([row[key] for row in found]) for key in ("smape", "mase")}
        for name, found in sums.items()
    }
    for row in table.values():
        row["owa"] = (
            metrics.owa(row["smape"], row["mase"], table["naive2"]["smape"], table["naive2"]["mase"])
            if naive2
            else float("nan")
        )
    nominal = levels[-1] - levels[0] if len(levels) > 1 else float("nan")
    quantile = {
        "wql": float(np.mean(loss / size)) if levels and size else float("nan"),
        "crps": float(np.mean(loss / count)) if levels and count else float("nan"),
        "coverage": inside / count if len(levels) > 1 and count else float("nan"),
    }
    table["model"] |= quantile
    for name in names[1:]:
        table[name] |= dict.fromkeys(quantile, float("nan"))
    return Scores(table, m, nominal, len(sums["model"]), origins, skipped)


def _row(actual: np.ndarray, forecast: np.ndarray, scale: np.ndarray) -> dict[str, float]:
    error = np.abs(actual - forecast)
    size = np.abs(actual) + np.abs(forecast)
    relative = np.divide(200.0 * error, size, out=np.where(np.isnan(error), np.nan, 0.0), where=size > 0)
    scaled = np.divide(error, scale, out=np.full(error.shape, np.nan), where=scale > 0)
    return {"smape": _nanmean(relative), "mase": _nanmean(scaled)}


def _nanmean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def scales(y: np.ndarray, m: int) -> np.ndarray:
    """MASE's denominator at every row: the mean |y_t - y_{t-m}| of what is known by then; NaN before there is one."""
    step = np.full(len(y), np.nan)
    step[m:] = np.abs(y[m:] - y[:-m]) if len(y) > m else 0.0
    seen = np.isfinite(step)
    total, n = np.cumsum(np.where(seen, step, 0.0)), np.cumsum(seen)
    return np.divide(total, n, out=np.full(len(y), np.nan), where=n > 0)


def floors(y: np.ndarray, at: np.ndarray, h: int, m: int) -> dict[str, np.ndarray]:
    """Naive and seasonal naive forecasts at each origin, [O, h]; a missing value is answered by the last one known."""
    index = np.where(np.isfinite(y), np.arange(len(y)), 0)
    filled = y[np.maximum.accumulate(index)]
    back = m * -(-(np.arange(h) + 1) // m)
    place = at[:, None] + np.arange(h) - back
    last = np.repeat(filled[at - 1][:, None], h, axis=1)
    return {"naive": last, "seasonal naive": np.where(at[:, None] >= m, filled[np.maximum(place, 0)], last)}


def _known(y: np.ndarray) -> np.ndarray:
    """The values with gaps closed by the last one known."""
    index = np.where(np.isfinite(y), np.arange(len(y)), 0)
    filled = y[np.maximum.accumulate(index)]
    return filled[np.isfinite(filled)]

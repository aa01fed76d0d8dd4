"""How a report looks: the score rows in words, the plots, and the one HTML page that holds them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from recurra import curve
from recurra.runtime.forecast import ForecastModel, m4_season
from recurra.runtime.scores import Scores
from recurra.timestep import Step

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from recurra.panel import Panel

COLUMNS = {"smape": "sMAPE %", "mase": "MASE", "owa": "OWA", "wql": "wQL", "crps": "CRPS", "coverage": "coverage"}
SEEN = 4  # a plot shows so many horizons before the origin
INK, BLUE, GREY, RED = "#1a1a1a", "#1f5fa8", "#8a8a8a", "#b3541e"


@dataclass(frozen=True)
class Drawn:
    """One series of the report. values [T]; origin: rows seen; y_hat, seasonal [h]; quantiles [h, levels]."""

    series: int
    values: np.ndarray
    origin: int
    y_hat: np.ndarray
    quantiles: np.ndarray
    seasonal: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """What a report is drawn from. below: share of values at or below each quantile; by_step: name -> scaled error [h]."""

    scores: Scores
    drawn: list[Drawn]
    below: np.ndarray
    by_step: dict[str, np.ndarray]


def _shown(scores: Scores) -> list[str]:
    """The metrics that at least one row has."""
    return [key for key in COLUMNS if any(math.isfinite(row.get(key, math.nan)) for row in scores.rows.values())]


def score_titles(scores: Scores) -> list[str]:
    """The column titles of a score table; metrics that no row has are left out."""
    nominal = f" of {100 * scores.nominal:.0f} %" if math.isfinite(scores.nominal) else ""
    return [COLUMNS[key] + (nominal if key == "coverage" else "") for key in _shown(scores)]


def score_rows(scores: Scores) -> Iterator[tuple[str, list[str]]]:
    """Each row of a score table: its name, and its numbers as text."""
    for name, row in scores.rows.items():
        yield name, [_number(key, row.get(key, math.nan)) for key in _shown(scores)]


def _number(key: str, value: float) -> str:
    if not math.isfinite(value):
        return "-"
    if key == "coverage":
        return f"{100 * value:.1f} %"
    return f"{value:.4g}" if key == "crps" else f"{value:.2f}" if key == "smape" else f"{value:.3f}"


def score_caption(scores: Scores) -> str:
    """What the scores are over."""
    skipped = f", {scores.skipped} left out" if scores.skipped else ""
    return f"{scores.series} series, {scores.origins} origins{skipped}; m = {scores.season}; lower is better, except coverage"


def step_words(step: Step) -> str:
    """A time step in words, e.g. "month", "15 minutes"."""
    unit, n, end = step.unit, step.n, step.end
    if unit == "month":
        return ("month" if n == 1 else f"{n} months") + (", stamped at its last day" if end else "")
    if unit == "int":
        return str(n)
    for name, size in (("day", 86_400_000_000), ("hour", 3_600_000_000), ("minute", 60_000_000), ("second", 1_000_000)):
        if n % size == 0:
            return name if n == size else f"{n // size} {name}s"
    return f"{n} microseconds"


# -- the page ------------------------------------------------------------------------------------------------------

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 1080px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.5em; margin-bottom: 0 } h2 { font-size: 1.15em; margin-top: 2em; border-bottom: 1px solid #ccc }
h3 { font-size: 1em; margin: 0.6em 0 0; font-weight: 600 } .note { color: #555; max-width: 46em }
table { border-collapse: collapse; margin: 0.8em 0 } th, td { padding: 0.2em 0.9em; text-align: right }
th { border-bottom: 1px solid #888; font-weight: 600 } th:first-child, td:first-child { text-align: left }
tr.model td { font-weight: 600 } .facts td { text-align: left; vertical-align: top } .facts td:first-child { color: #555 }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(460px, 1fr)); gap: 0.4em 1.2em }
.plots > div { break-inside: avoid; min-width: 0 }
@media print { body { margin: 0; max-width: none } h2 { break-after: avoid } }
"""


def render(model: ForecastModel, panel: "Panel", evidence: Evidence, last: int | None) -> str:
    """The HTML page of a report, whole."""
    from plotly.offline import get_plotlyjs

    scores, name = evidence.scores, escape(model.codec.columns.target)
    part = (
        "every origin of the table"
        if last is None
        else f"every origin in the last {max(last, model.horizon)} rows of each series"
    )
    seen = " It is the table that the model was trained on." if panel.digest() == model.manifest["data"] else ""
    dashes = (
        "Grey dashes: the seasonal naive forecast" if m4_season(model.codec) > 1 else "Grey dashes: the naive forecast"
    )
    sections = [
        f"<h1>Forecast of {name}, {model.horizon} steps ahead</h1>",
        f'<p class="note">A recurra model, {escape(str(model.manifest.get("created", "")))}.</p>',
        f"<h2>Scores beside the floors</h2>{_score_html(scores)}",
        f'<p class="note">{escape(score_caption(scores))}. Counted: {part}.{seen} MASE is scaled by '
        "the error of the seasonal naive forecast (m steps back) on what was known at each origin.</p>",
        "<h2>Forecasts made one horizon before the end</h2>",
        f'<p class="note">Black: what happened. Blue: the median, with {_bands(model.levels)}. {dashes}.</p>',
        '<div class="plots">',
        *(
            f"<div><h3>{escape(str(panel.ids[d.series]))}</h3>{_html(_series_plot(model, panel, d))}</div>"
            for d in evidence.drawn
        ),
        "</div>",
        '<div class="plots">',
    ]
    if model.levels:
        sections.append(
            f"<div><h2>Calibration</h2>{_html(_calibration(model.levels, evidence.below))}"
            '<p class="note">Share of values at or below each quantile; on the dashed line, it is what it says.</p>'
            f"{_calibration_html(model.levels, evidence.below)}</div>"
        )
    sections.append(
        f"<div><h2>Error by step ahead</h2>{_html(_by_step(evidence.by_step))}"
        '<p class="note">Mean absolute error in units of MASE, averaged over series; below the floors is better.</p></div></div>'
    )
    sections += [curve.section(model.manifest), "<h2>The model</h2>", _facts(model)]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>recurra: {name}</title>'
        f"<style>{STYLE}</style><script>{get_plotlyjs()}</script></head><body>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def _score_html(scores: Scores) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in ("", *score_titles(scores)))
    rows = "".join(
        f"<tr{' class=model' if name == 'model' else ''}><td>{escape(name)}</td>{''.join(f'<td>{c}</td>' for c in cells)}</tr>"
        for name, cells in score_rows(scores)
    )
    return f"<table><tr>{head}</tr>{rows}</table>"


def table_html(titles: list[str], rows: list[list[str]]) -> str:
    """A table of text."""
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{escape(title)}</th>' for title in titles)}</tr>{body}</table>"


def _calibration_html(levels: tuple[float, ...], below: np.ndarray) -> str:
    rows = [[f"{q:g}", f"{share:.3f}"] for q, share in zip(levels, below.tolist(), strict=True)]
    return table_html(["quantile", "share below"], rows)


def _facts(model: ForecastModel) -> str:
    codec, training = model.codec, model.manifest.get("training", {})
    core = model.manifest["config"]["core"]
    step = step_words(codec.step)
    inputs = [
        f"{kind}: {', '.join(names)}"
        for kind, names in (
            ("static", codec.columns.static),
            ("past", codec.columns.past),
            ("future", codec.columns.future),
            ("calendar", codec.covariates.cycles),
        )
        if names
    ]
    facts = {
        "network": f"{core['cell']}, {core['layers']} layer(s) of {core['hidden']}, {training.get('parameters', '?')} parameters",
        "inputs": "; ".join([codec.columns.target, *inputs]),
        "time step": f"{step}; seasons: {', '.join(map(str, codec.scaling.seasons)) or 'none'}",
        "scaling": f"{codec.scaling.kind}, {codec.scaling.transform}",
        "output": codec.output,
        "trained on": f"{training.get('series', '?')} series, {training.get('rows', '?')} rows, {training.get('epochs', '?')} epochs, "
        f"{training.get('seconds', '?')} s",
        "model digest": model.digest,
        "data digest": model.manifest["data"],
    }
    rows = "".join(f"<tr><td>{escape(key)}</td><td>{escape(str(value))}</td></tr>" for key, value in facts.items())
    return f'<table class="facts">{rows}</table>'


def _pairs(levels: tuple[float, ...]) -> list[tuple[int, int]]:
    """The quantiles to shade between, outermost first: every pair that is symmetric about the median, three at most."""
    pairs = [(i, len(levels) - 1 - i) for i in range(len(levels) // 2) if abs(levels[i] + levels[-1 - i] - 1.0) < 1e-9]
    return pairs if len(pairs) <= 3 else [pairs[0], pairs[len(pairs) // 2], pairs[-1]]


def _bands(levels: tuple[float, ...]) -> str:
    shares = [f"{100 * (levels[b] - levels[a]):.0f}" for a, b in _pairs(levels)]
    return f"shaded intervals of {', '.join(shares)} %" if shares else "no intervals (this model has none)"


def _figure(height: int) -> "Figure":
    from plotly.graph_objects import Figure

    figure = Figure()
    axis = {"gridcolor": "#e6e6e6", "zeroline": False, "linecolor": "#aaa", "ticks": "outside", "tickcolor": "#aaa"}
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 52, "r": 8, "t": 8, "b": 36},
        font={"family": "system-ui, sans-serif", "size": 12, "color": INK},
        showlegend=False,
        xaxis=axis,
        yaxis=axis,
        hovermode="x unified",
    )
    return figure


def _series_plot(model: ForecastModel, panel: "Panel", one: Drawn) -> "Figure":
    """The last part of a series, with the forecast from `one.origin` on."""
    figure, h = _figure(240), model.horizon
    times = panel.step.next(panel.start[one.series], np.arange(one.origin + h))
    stamps = [str(t)[:19] if model.codec.step.dates else int(t) for t in times]
    begin = max(0, one.origin - max(SEEN * h, 2 * max(model.codec.scaling.seasons, default=1)))
    ahead = stamps[one.origin :]
    for n, (a, b) in enumerate(_pairs(model.levels)):
        share = f"{100 * (model.levels[b] - model.levels[a]):.0f} %"
        edge: dict[str, Any] = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
        figure.add_scatter(x=ahead, y=_rounded(one.quantiles[:, a]), **edge)
        figure.add_scatter(
            x=ahead,
            y=_rounded(one.quantiles[:, b]),
            fill="tonexty",
            fillcolor=f"rgba(31,95,168,{0.14 + 0.1 * n})",
            name=share,
            **edge,
        )
    lines = (
        (stamps[begin:], one.values[begin : one.origin + h], "actual", INK, "solid"),
        (ahead, one.seasonal, "seasonal naive", GREY, "dash"),
        (ahead, one.y_hat, "model", BLUE, "solid"),
    )
    for x, y, name, colour, dash in lines:
        figure.add_scatter(
            x=x, y=_rounded(y), mode="lines", name=name, line={"color": colour, "dash": dash, "width": 1.6}
        )
    return figure


def _calibration(levels: tuple[float, ...], below: np.ndarray) -> "Figure":
    figure = _figure(320)
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", name="ideal", line={"color": GREY, "dash": "dash", "width": 1})
    figure.add_scatter(x=list(levels), y=_rounded(below), mode="lines+markers", name="model", line={"color": BLUE})
    figure.update_xaxes(title="quantile", range=[0, 1])
    figure.update_yaxes(title="share of values below", range=[0, 1])
    return figure


def _by_step(errors: dict[str, np.ndarray]) -> "Figure":
    figure = _figure(320)
    colours = {"model": BLUE, "naive": RED, "seasonal naive": GREY}
    for name, values in errors.items():
        dash = "solid" if name == "model" else "dash"
        steps = list(range(1, len(values) + 1))
        figure.add_scatter(
            x=steps,
            y=_rounded(values),
            mode="lines+markers",
            name=name,
            line={"color": colours[name], "dash": dash},
            marker={"size": 4},
        )
    figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.12})
    figure.update_xaxes(title="steps ahead")
    figure.update_yaxes(title="MASE", rangemode="tozero")
    return figure


def _rounded(values: np.ndarray) -> list[float | None]:
    """Six significant digits, None for what is missing: a plot needs no more, and the page stays small."""
    return [float(f"{v:.6g}") if math.isfinite(v) else None for v in values.tolist()]


def _html(figure: "Figure") -> str:
    return figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False, "responsive": True})

"""The learning curve of a model: the loss after each epoch, as a small SVG."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 520, 240
LEFT, RIGHT, TOP, BOTTOM = 60, 12, 26, 34  # margins
LINES = {"loss": ("training", "#8a8a8a"), "validation_loss": ("validation", "#1f5fa8")}


def section(manifest: Mapping[str, Any]) -> str:
    """The part of a report about training; nothing for a model that was written without a history."""
    history = manifest.get("training", {}).get("history", [])
    if not any(row[name] is not None for row in history for name in LINES):
        return ""
    errors = {row["epoch"]: row["validation_error"] for row in history if row["validation_error"] is not None}
    kept = (
        f" The weights are those after epoch {min(errors, key=errors.__getitem__)}, whose validation error is least."
        if errors
        else ""
    )
    return f'<h2>Learning curve</h2>{_svg(history)}<p class="note">Mean loss of each epoch, in training with all its dropout.{kept}</p>'


def _svg(history: Sequence[Mapping[str, Any]]) -> str:
    values = [row[name] for row in history for name in LINES if row[name] is not None]
    low, high = min(values), max(values)
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - pad, high + pad
    last = max(2, history[-1]["epoch"])

    def x(epoch: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (epoch - 1) / (last - 1), 1)

    def y(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low), 1)

    parts = []
    for tick in _ticks(low, high):
        parts.append(f'<path d="M{LEFT} {y(tick)}H{WIDTH - RIGHT}" stroke="#e6e6e6"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(tick) + 4}" text-anchor="end">{tick:.6g}</text>')
    for epoch in range(1, last + 1, -(-last // 10)):
        parts.append(f'<text x="{x(epoch)}" y="{HEIGHT - 18}" text-anchor="middle">{epoch}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 3}" text-anchor="middle">epoch</text>')
    for k, (name, (label, colour)) in enumerate(LINES.items()):
        rows = [row for row in history if row[name] is not None]
        if not rows:
            continue
        points = " ".join(f"{x(row['epoch'])},{y(row[name])}" for row in rows)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        for row in rows:
            told = {key.replace("_", " "): value for key, value in row.items() if value is not None}
            words = ", ".join(
                f"{key} {value if isinstance(value, str) else f'{value:g}'}" for key, value in told.items()
            )
            at = f'cx="{x(row["epoch"])}" cy="{y(row[name])}"'
            parts.append(f'<circle {at} r="2.6" fill="{colour}"><title>{escape(words)}</title></circle>')
        parts.append(f'<text x="{LEFT + 90 * k}" y="14" style="fill:{colour}">{label}</text>')
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" aria-label="learning curve" '
        f'style="max-width:100%;font:12px system-ui,sans-serif">{"".join(parts)}</svg>'
    )


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers between the two."""
    unit = 10.0 ** math.floor(math.log10((high - low) / 3))
    step = unit * max(k for k in (1, 2, 5) if k * unit <= (high - low) / 3)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]

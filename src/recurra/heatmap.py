"""What each word of an answer attended to, as a picture: a row a word, a column a word of the source, the darker the more."""

from html import escape
from typing import Any

import numpy as np

from recurra.runtime.writer import Written, need

CELL, FONT = 20, 12  # pixels
COLOUR = (31, 95, 168)


def svg(source: list[str], words: list[str], attention: Any) -> str:
    """A small SVG for a page. attention [words][source]: shares; each cell says its own when it is pointed at."""
    if not words or not source:
        return ""
    left, top = 8 + round(0.6 * FONT * max(map(len, words))), 8 + round(0.6 * FONT * max(map(len, source)))
    width, height = left + CELL * len(source) + 4, top + CELL * len(words) + 4
    parts = []
    for s, word in enumerate(source):
        x = left + CELL * s + CELL * 0.65
        parts.append(f'<text transform="translate({x:.0f},{top - 5}) rotate(-90)">{escape(word)}</text>')
    for t, (word, row) in enumerate(zip(words, attention, strict=True)):
        y = top + CELL * t
        parts.append(f'<text x="{left - 5}" y="{y + CELL * 0.7:.0f}" text-anchor="end">{escape(word)}</text>')
        for s, share in enumerate(row):
            at = f'x="{left + CELL * s}" y="{y}" width="{CELL - 1}" height="{CELL - 1}"'
            colour = "rgb({},{},{})".format(*(round(255 - min(max(share, 0.0), 1.0) * (255 - c)) for c in COLOUR))
            said = escape(f"{word}, {source[s]}: {share:.2f}")
            parts.append(f'<rect {at} fill="{colour}" stroke="#e6e6e6"><title>{said}</title></rect>')
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="attention" '
        f'style="max-width:100%;font:{FONT}px system-ui,sans-serif">{"".join(parts)}</svg>'
    )


def figure(answer: Written) -> Any:
    """A figure of matplotlib, e.g. to save: figure(answer).savefig("attention.png"). Raises UnsupportedError without matplotlib."""
    need("matplotlib", "plot")
    from matplotlib.figure import Figure

    shape = answer.attention.shape
    made = Figure(figsize=(2 + 0.3 * shape[1], 1 + 0.3 * shape[0]), layout="constrained")
    axes = made.subplots()
    axes.imshow(answer.attention if answer.attention.size else np.zeros((1, 1)), cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(shape[1]), answer.source_words, rotation=90, parse_math=False)
    axes.set_yticks(range(shape[0]), answer.words, parse_math=False)
    axes.xaxis.tick_top()
    return made

"""What each word of an answer attended to, as a picture: a row a word, a column a word of the source, the darker the more."""

import os
import warnings
from html import escape
from typing import Any

import numpy as np

from recurra.runtime.writer import need
from recurra.runtime.written import Written

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
    fonts = _fonts({letter for word in (*answer.source_words, *answer.words) for letter in word})
    axes.set_xticks(range(shape[1]), answer.source_words, rotation=90, parse_math=False, fontfamily=fonts)
    axes.set_yticks(range(shape[0]), answer.words, parse_math=False, fontfamily=fonts)
    axes.xaxis.tick_top()
    return made


def save(answer: Written, path: str | os.PathLike[str]) -> None:
    """Write the figure as a file of matplotlib's, e.g. attention.png; none where there is no word. Raises UnsupportedError as `figure`."""
    if not answer.attention.size:
        return
    made = figure(answer)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # one for each letter, of which `figure` has warned together
        made.savefig(path, dpi=150)


def _fonts(letters: set[str]) -> list[str]:
    """Matplotlib's fonts as they are set, and installed ones for the letters that these lack. Warns where none has them."""
    from matplotlib import font_manager, rcParams

    def lacks(path: str) -> set[str]:
        return {letter for letter in letters if not font_manager.get_font(path).get_char_index(ord(letter))}

    names = list(rcParams["font.family"])
    for name in names:
        letters = lacks(font_manager.findfont(font_manager.FontProperties(family=[name])))
    for font in font_manager.fontManager.ttflist:
        if not letters:
            break
        if not font.name.startswith("Last Resort") and (left := lacks(font.fname)) < letters:
            names.append(font.name)
            letters = left
    if letters:
        warnings.warn(
            f"no installed font has the letters {''.join(sorted(letters))[:20]!r}: a picture shows boxes; install one, e.g. Noto Sans CJK",
            RuntimeWarning,
            stacklevel=3,
        )
    return names

"""The HTML report of a text task: its scores beside the floors, what lies behind them, and the facts; one file, opens offline."""

from collections.abc import Mapping
from html import escape
from typing import Any

from recurra import curve, heatmap
from recurra.page import STYLE, table_html
from recurra.runtime.scored import Scored


def render(manifest: Mapping[str, Any], facts: dict[str, Any], scored: Scored) -> str:
    """The page, whole. facts: of `recurra info`."""
    task = manifest["task"]
    rows = [[name, *scored.cells(name)] for name in scored.rows]
    sections = [
        f"<h1>{escape(task.capitalize())}</h1>",
        f'<p class="note">A recurra model, {escape(str(facts["created"]))}.</p>',
        "<h2>Scores beside the floors</h2>",
        table_html(["", *scored.titles], rows),
        f'<p class="note">{escape(scored.caption)}</p>',
    ]
    for title, table in scored.details.items():
        columns = list(dict.fromkeys(key for row in table.values() for key in row))
        cells = [[name, *(f"{row[key]:.4g}" if key in row else "-" for key in columns)] for name, row in table.items()]
        sections += [f"<h2>{escape(title.capitalize())}</h2>", table_html(["", *columns], cells)]
    for example in scored.examples:
        lead = "<h2>What it attended to</h2>" if example is scored.examples[0] else ""
        picture = heatmap.svg(example["source"], example["words"], example["attention"])
        sections.append(f'{lead}<p class="note">Wanted: {escape(example["wanted"])}</p>{picture}')
    shown = {key: value for key, value in facts.items() if key != "scores" and value not in (None, [], {}, "")}
    lines = "".join(f"<tr><td>{escape(key)}</td><td>{escape(_words(value))}</td></tr>" for key, value in shown.items())
    sections += [curve.section(manifest), "<h2>The model</h2>", f'<table class="facts">{lines}</table>']
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>recurra: {escape(task)}</title>'
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(sections) + "\n</body></html>\n"
    )


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(part)}" for key, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

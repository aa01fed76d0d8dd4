"""The kept results of kernels.py as Markdown tables: `python benchmarks/kernels.py --markdown`."""

from typing import Any

from contest import tokens_a_second


def markdown(whole: dict[str, Any]) -> str:
    """One section a table; a line for each bar, with both ratios and the target."""
    lines = []
    for name, table in whole.items():
        versions = ", ".join(f"{what} {version}" for what, version in table["versions"].items())
        lines += [
            f"### {name}",
            "",
            f"{table['cpu']}, {table['cores']} cores, {table['isa']} (torch {table['torch_isa']}), {versions}; "
            f"{table['date']}, commit {table['commit']}, load {table['load']}; `{table['command']}`",
            "",
            "| | threads | over | ms or MB | under | ms or MB | in turns | alone | target | |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for row in table["rows"]:
            lines += [line(row, bar) for bar in row["bars"]]
            if "tokens_a_step" in row:
                rates = ", ".join(f"{variant} {rate:,}" for variant, rate in tokens_a_second(row).items())
                lines.append(f"| {row['row']} | {row['threads']} | tokens a second: {rates} | | | | | | | |")
        lines.append("")
    return "\n".join(lines)


def line(row: dict[str, Any], bar: dict[str, Any]) -> str:
    verdict = {True: "yes", False: "**no**", None: ""}[bar.get("passed")] + (" (disturbed)" if row["disturbed"] else "")
    if bar["of"] == "time":
        ms = row["ms"].get("alone", row["ms"]["in_turns"])
        sizes = [f"{ms[bar[side]]:.3g}" for side in ("over", "under")]
        ratios = [f"{bar['in_turns']:.2f}", f"{bar['alone']:.2f}" if "alone" in bar else ""]
    else:
        sizes = [f"{row['kept'][bar[side]][bar['of']] / 1e6:.1f}" for side in ("over", "under")]
        ratios = [f"{bar['ratio']:.2f}", bar["of"]]
    cells = [row["row"], row["threads"], bar["over"], sizes[0], bar["under"], sizes[1], *ratios, bar["target"], verdict]
    return "| " + " | ".join(map(str, cells)) + " |"

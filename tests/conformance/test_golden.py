"""Every format of the model file stays readable: a model of each, and what it forecast when it was written."""

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import recurra

GOLDEN = Path(__file__).parents[1] / "golden"
HOW_TO_REGENERATE = (
    "a model file that was written by an earlier recurra forecasts otherwise now, or is refused. If the format was changed on "
    "purpose: raise modelfile.FORMAT, keep the old reader, and write the NEW format's golden folder with "
    "`python tests/conformance/test_golden.py`; never rewrite an old one"
)


def table() -> pl.DataFrame:
    """Two series with a rhythm of 7 and a hole."""
    t = np.arange(60)
    parts = [10.0 + 3.0 * np.sin(2 * np.pi * t / 7) + 0.05 * t, 400.0 + 90.0 * np.cos(2 * np.pi * t / 7) - t]
    parts[0][20] = np.nan
    days = np.datetime64("2024-01-01") + t
    frames = [pl.DataFrame({"unique_id": str(i), "ds": days, "y": y}) for i, y in enumerate(parts)]
    return pl.concat(frames).with_columns(pl.col("y").fill_nan(None))


@pytest.mark.parametrize("folder", sorted(GOLDEN.glob("format*")), ids=lambda p: p.name)
def test_old_formats_stay_readable(folder: Path) -> None:
    expected = json.loads((folder / "expected.json").read_text())
    found = recurra.load(folder / "model").predict(table())["y_hat"].to_numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=HOW_TO_REGENERATE)


def test_the_present_format_has_a_golden_file() -> None:
    from recurra.modelfile import FORMAT

    assert (GOLDEN / f"format{FORMAT}").is_dir(), HOW_TO_REGENERATE


if __name__ == "__main__":
    from recurra.modelfile import FORMAT

    place = GOLDEN / f"format{FORMAT}"
    if place.exists():
        sys.exit(f"{place} is there already: {HOW_TO_REGENERATE}")
    made = recurra.train(
        recurra.Forecast(horizon=3, quantiles=(0.1, 0.5, 0.9), head=8),
        recurra.Series(table()),
        core=recurra.Core(hidden=4),
        fit=recurra.Fit(epochs=1),
        out=place / "model",
        progress=False,
    )
    (place / "expected.json").write_text(json.dumps(made.predict(table())["y_hat"].to_list()))

"""20,000 series of 1,000 points: seconds and peak memory of reading and training, no window materialised.

    python benchmarks/forecast_large.py [--series 20000] [--points 1000]

Generates hourly series (daily rhythm, trend, noise) as Parquet in a temporary folder, then trains one epoch in a fresh
process and prints its peak resident memory, which must stay below 3 GB.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl


def generate(path: Path, series: int, points: int) -> None:
    """A long Parquet file of `series` x `points` rows, written in pieces."""
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    start = np.datetime64("2024-01-01T00", "us")
    stamps = start + np.arange(points) * np.timedelta64(3600, "s").astype("timedelta64[us]")
    writer = None
    for first in range(0, series, 500):
        n = min(500, series - first)
        level = np.exp(rng.normal(3, 1, (n, 1)))
        rhythm = 1 + 0.4 * np.sin(2 * np.pi * (np.arange(points) / 24 + rng.uniform(0, 1, (n, 1))))
        y = level * rhythm * np.exp(0.1 * rng.standard_normal((n, points)))
        ids = np.repeat([f"s{i:05d}" for i in range(first, first + n)], points)
        table = pl.DataFrame({"unique_id": ids, "ds": np.tile(stamps, n), "y": y.ravel()}).to_arrow()
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def train(path: Path, out: Path) -> None:
    """One epoch, in this process; prints figures as JSON."""
    import torch

    torch.set_num_threads(1)
    import recurra

    started = time.monotonic()
    model = recurra.train(
        recurra.Forecast(horizon=24, head=64, quantiles=(0.1, 0.5, 0.9)),
        recurra.Series(str(path)),
        core=recurra.Core(hidden=32, layers=1),
        fit=recurra.Fit(epochs=1, batch_size=256, chunk=96),
        out=out,
        overwrite=True,
        progress=False,
    )
    figures = {
        "seconds": round(time.monotonic() - started, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        **model.manifest["training"],
    }
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=20_000)
    parser.add_argument("--points", type=int, default=1_000)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        return train(options.train, options.train.parent / "model")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.parquet"
        generate(path, options.series, options.points)
        subprocess.run([sys.executable, __file__, "--train", str(path)], check=True)
    return None


if __name__ == "__main__":
    main()

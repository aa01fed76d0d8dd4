"""Settings that every test shares. Warnings are errors: see pyproject.toml."""

import os

# One thread a process: the machine has few cores and xdist uses them. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

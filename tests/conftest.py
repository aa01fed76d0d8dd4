"""Settings that every test shares. Warnings are errors: see pyproject.toml."""

import os
import signal

# One thread a process: the machine has few cores and xdist uses them. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background jobs ignore Ctrl-C, and so would the processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

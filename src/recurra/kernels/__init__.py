"""Ways to run a cell over time. `scan` is the one door; `loop` defines the answer, the others are faster."""

from recurra.kernels.cpu import release_memory
from recurra.kernels.request import Request, Scan
from recurra.kernels.scan import KERNELS, choose, scan

__all__ = ["KERNELS", "Request", "Scan", "choose", "release_memory", "scan"]

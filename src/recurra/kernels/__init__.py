"""Ways to run a cell over time. `scan` is the one door; `loop` defines the answer, the others are faster."""

from recurra.kernels.request import Request, Scan
from recurra.kernels.scan import KERNELS, choose, scan

__all__ = ["KERNELS", "Request", "Scan", "choose", "scan"]

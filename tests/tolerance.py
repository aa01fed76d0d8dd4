"""Every tolerance of the tests, with the error that was measured and the reason. They never relax on CI.

The measure is `error(a, b)`: the largest |a - b| over 1 + the largest |b|.
"""

from typing import Any

import numpy as np

# kernel, dtype -> tolerance of outputs, states and gradients against the float64 loop (T <= 63, B <= 31, H <= 63)
SCAN = {
    # measured 4e-15; a sum of T * B terms in another order, 2^-53 = 1.1e-16 each
    ("cpu", "float64"): 2e-14,
    ("aten", "float64"): 2e-14,
    ("loop", "float64"): 0.0,
    # measured 3e-6 (the bias of relu over 63 steps); 2^-24 = 6e-8 a step, and the weight gradients sum 2000 of them
    ("cpu", "float32"): 1e-5,
    ("aten", "float32"): 1e-5,
    ("loop", "float32"): 1e-5,
}

# our layer against torch.nn's, both float64: the same equations in another order. Measured 1e-15
DROP_IN = 2e-14

# the runtime (float32, own exp and tanh) against torch.nn in float64. Measured 6e-7 (a relu network, 3 layers of 63, 20 frames)
RUNTIME = 3e-6

# the same run on numpy instead of recurra._core: other fma, other order of the two biases. Measured 6e-7
PLAIN = 3e-6


def error(a: Any, b: Any) -> float:
    """The largest |a - b| over 1 + the largest |b|, for tensors or arrays of one shape; NaN if either holds one."""
    a, b = (np.asarray(v.detach() if hasattr(v, "detach") else v, np.float64) for v in (a, b))
    assert a.shape == b.shape, f"shapes {a.shape} and {b.shape}"
    return float(np.abs(a - b).max() / (1 + np.abs(b).max())) if a.size else 0.0

"""Every tolerance of the tests, with the error that was measured and the reason. They never relax on CI.

The measure is `error(a, b)`: the largest |a - b| over 1 + the largest |b|.
"""

from typing import Any

import numpy as np

# kernel, dtype -> tolerance of outputs, states and gradients against the float64 loop (T <= 63, B <= 31, H <= 63).
# Measured over every case with avx512, the float32 rows also with avx2 and portable; the margin is for other processors
# and BLAS libraries.
SCAN = {
    # measured 1.9e-15 (2.9e-15 on three threads): sums of up to T * B terms in another order, 2^-53 = 1.1e-16 each
    ("cpu", "float64"): 1e-14,
    # measured 1.4e-15, for the same reason
    ("aten", "float64"): 1e-14,
    # the same code
    ("loop", "float64"): 0.0,
    # measured 1.1e-6: 2^-24 = 6e-8 a step, and relu, over 63 steps, forgets nothing
    ("cpu", "float32"): 4e-6,
    # measured 9.3e-7
    ("aten", "float32"): 4e-6,
    # measured 4.0e-7
    ("loop", "float32"): 4e-6,
}

# the same with LayerNorm, which divides by a spread that may be small: the loop in float32 measured 7.2e-6, all options at once
SCAN_NORMED = {"float64": 4e-14, "float32": 2e-5}

# our layer against torch.nn's, both float64: the same equations summed in another order. Measured 1.7e-15
DROP_IN = 1e-14

# the runtime (float32, own exp and tanh) against torch.nn or numpy in float64. Measured 2.2e-7 (stacks), 3.2e-7 (linear)
RUNTIME = 1e-6

# the same stack on numpy instead of recurra._core: no fma, and the two biases added in another order. Measured 1.4e-7
PLAIN = 6e-7

# a bound step against its float32 self over a stream of 2,000 frames (lstm, gru, rnn; H 64 to 256, torch's initial weights).
# Measured, as error() does, over 1 + the largest value: bfloat16 4.3e-4 (lstm), 6.1e-4 (gru), 1.2e-3 (rnn); int8 1.7e-3, 1.3e-3,
# 4.6e-3. As large in the last 1,000 frames as in the first: the gates forget it
BOUND = {"bfloat16": 3e-3, "int8": 1e-2}

# a forecaster's raw head output, the runtime against torch in eval mode, both float32. Measured 1.8e-7 (3 layers of 7, 40 steps)
FORECAST_HEAD = 1e-6


def error(a: Any, b: Any) -> float:
    """The largest |a - b| over 1 + the largest |b|, for tensors or arrays of one shape; NaN if either holds one."""
    a, b = (np.asarray(v.detach() if hasattr(v, "detach") else v, np.float64) for v in (a, b))
    assert a.shape == b.shape, f"shapes {a.shape} and {b.shape}"
    return float(np.abs(a - b).max() / (1 + np.abs(b).max())) if a.size else 0.0


# a float32 layer against ONNX's node tests and onnxruntime, which has exp and tanh of its own
ONNX = 1e-6

# the cpu kernel against the float64 loop over the random layers of test_fuzz.py, 5,000 of them. Measured 1.3e-15 and 1.1e-6
FUZZ = {"float64": 1e-14, "float32": 4e-6}
# LayerNorm divides by spreads that may be next to nothing, so that a rounding grows up to 316 times (1 / sqrt(eps)) in each step. With it
# an error may be this many times that of the loop in float32 (three times, weights moved by a rounding), scaled to the type. Measured: at
# most 1.2, over 1,200 random layers and the 14 worst of 4,700
FUZZ_NORMED = 4.0

# pieces of a sequence against the whole, float64: weight gradients are summed in another order
PIECES = 1e-14

# a classifier's probabilities or logits, the runtime against torch in eval mode, both float32, and torch's one batch against another.
# Measured 1.2e-7 (2 layers of 7, up to 70 steps)
CLASSIFY = 6e-7

"""Masks from a counter: the bits are those that the text says, their statistics those of independent draws, and nothing is stored."""

import numpy as np
import pytest
import torch

from recurra.kernels import cpu, masks

SEED = torch.tensor(-1_234_567_890_123_456_789)
STREAM = 8 * 5 + masks.ZONEOUT_C
in_core = pytest.mark.skipif(not hasattr(cpu._core, "mask_apply"), reason="recurra._core has no masks")


def bits(seed, stream, step, row, unit):
    """The definition, in numpy's uint32."""

    def mix(x):
        x = x ^ (x >> np.uint32(16))
        x = x * np.uint32(0x21F0AAAD)
        x = x ^ (x >> np.uint32(15))
        x = x * np.uint32(0x735A2D97)
        return x ^ (x >> np.uint32(15))

    seed = int(seed) & (2**64 - 1)
    numbers = [np.array(v % 2**32, np.uint32) for v in (seed, seed >> 32, 0x9E3779B9 * stream, step, row, unit)]
    with np.errstate(over="ignore"):
        low, high, far, step, row, unit = numbers
        key = mix(mix(mix(mix(low + far) ^ high) + step) + row)
        return mix(key + unit)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.999, 1.0])
def test_the_bits_are_the_written_ones(p):
    want = [
        [[bits(SEED, STREAM, t, b, u) >> np.uint32(8) < int(p * 2**24) for u in range(7)] for b in range(3)]
        for t in range(5)
    ]
    like = torch.empty(5, 3, 7)
    assert torch.equal(masks.factors(p, SEED, STREAM, like) == 0, torch.tensor(want))
    for t in range(5):
        assert torch.equal(masks.at_step(p, SEED, STREAM, t, like[0]), torch.tensor(want[t]))


@in_core
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(5, 3, 7), (31, 63), (1, 1), (4, 0, 7)], ids=str)
def test_the_core_has_the_same_bits(shape, p, dtype):
    x = torch.randn(shape, dtype=dtype)
    assert torch.equal(masks.dropout(x, p, SEED, STREAM), x * masks.factors(p, SEED, STREAM, x))


def test_statistics():
    p, like = 0.3, torch.empty(50, 40, 500)
    gone = masks.factors(p, SEED, STREAM, like) == 0
    sigma = (p * (1 - p) / gone.numel()) ** 0.5
    assert abs(gone.double().mean().item() - p) < 4 * sigma
    for dim in range(3):  # neighbours in time, row and unit know nothing of each other
        a, b = gone.narrow(dim, 0, like.shape[dim] - 1), gone.narrow(dim, 1, like.shape[dim] - 1)
        assert abs((a & b).double().mean().item() - p * p) < 4 * (p * p * (1 - p * p) / a.numel()) ** 0.5
        mean = gone.double().mean([d for d in range(3) if d != dim])
        assert (mean - p).abs().max() < 5.5 * sigma * like.shape[dim] ** 0.5
    for seed, stream in ((SEED + 1, STREAM), (SEED + 2**32, STREAM), (SEED, STREAM + 1)):
        other = masks.factors(p, seed, stream, like) == 0
        assert abs((gone & other).double().mean().item() - p * p) < 4 * (p * p * (1 - p * p) / gone.numel()) ** 0.5


def test_dropout_is_linear_and_stores_no_mask():
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda v: saved.append(v) or v, lambda v: v):
        x = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
        y = masks.dropout(x, 0.4, SEED, STREAM)
    assert not saved
    mask = masks.factors(0.4, SEED, STREAM, x)
    assert torch.equal(y, x * mask)
    assert torch.equal(mask.unique(), torch.tensor([0, 1 / 0.6], dtype=torch.float64)), "in double, not in float"
    grad = torch.randn_like(x)
    assert torch.equal(torch.autograd.grad(y, x, grad)[0], grad * mask)
    f = lambda x: masks.dropout(x.square(), 0.4, SEED, STREAM)  # noqa: E731
    assert torch.autograd.gradcheck(f, x)
    assert torch.autograd.gradgradcheck(f, x)
    assert torch.equal(
        torch.func.jvp(lambda x: masks.dropout(x, 0.4, SEED, 3), (x,), (x,))[1], masks.dropout(x, 0.4, SEED, 3)
    )


def test_all_dropped_is_zero_and_none_is_all():
    x = torch.randn(4, 5, requires_grad=True)
    gone = masks.dropout(x, 1.0, SEED, STREAM)
    assert (gone == 0).all()
    assert (torch.autograd.grad(gone.sum(), x)[0] == 0).all()
    assert torch.equal(masks.dropout(x, 0.0, SEED, STREAM), x)
    half = masks.dropout(torch.ones(400, 50, dtype=torch.bfloat16), 0.5, SEED, STREAM)
    assert set(half.unique().tolist()) == {0.0, 2.0}


def test_the_seed_is_torchs():
    torch.manual_seed(4)
    one, two = masks.new_seed(), masks.new_seed()
    torch.manual_seed(4)
    assert torch.equal(masks.new_seed(), one)
    assert one.dtype == torch.int64
    assert not torch.equal(one, two)

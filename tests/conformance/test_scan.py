"""Every kernel that covers a request gives the loop's answer: outputs, states and every gradient, by name."""

import pytest
import torch

from recurra.errors import UnsupportedError
from recurra.kernels import scan
from tolerance import SCAN, SCAN_NORMED, error
from zoo import CELL_ROWS, KERNEL_ROWS, OPTION_ROWS, SHAPES, by, make_cell, make_state, needs_core, weights_of

REQUESTS = [(), ("lengths",), ("reset",), ("states",), ("lengths", "reset", "states")]
FAST = [row for row in KERNEL_ROWS if row.name != "loop"]
TIMES = [
    (),
    ("lengths", "reset", "states"),
    ("reverse",),
    ("reverse", "lengths", "reset", "states"),
    ("packed", "states"),
    ("packed", "reverse"),
]
PAIRS = [(row, option) for row in CELL_ROWS for option in OPTION_ROWS if option.covers(row.name)]
SEED = torch.tensor(-8_765_432_109_876)


@pytest.fixture(autouse=True)
def _poisoned_memory():
    """torch.empty gives NaN, so a kernel that forgets to write somewhere is caught."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


def case(row, shape, request, dtype, option=None):
    """cell, x, state and the keywords of one request: ragged lengths (0 and T among them) with NaN beyond, and resets."""
    steps, rows, inputs, hidden = shape
    g = torch.Generator().manual_seed(steps * 100 + rows)
    cell = make_cell(row, inputs, hidden, dtype, further=option.weights.get(row.name, ()) if option else ())
    x = torch.randn(steps, rows, inputs, generator=g, dtype=torch.float64).to(dtype)
    keywords = dict(option.keywords, seed=SEED, stream=24) if option else {}
    if "lengths" in request:
        lengths = torch.randint(0, steps + 1, (rows,), generator=g)
        lengths[0] = steps
        lengths[-1] = 0 if rows > 1 else steps
        for b, length in enumerate(lengths.tolist()):
            x[length:, b] = float("nan")
        keywords["lengths"] = lengths
    if "reset" in request:
        keywords["reset"] = torch.rand(rows, steps, generator=g) < 0.3
    if "packed" in request:
        lengths = torch.randint(1, steps + 1, (rows,), generator=g).sort(descending=True).values
        lengths[0] = steps
        keywords["batch_sizes"] = sizes = (lengths > torch.arange(steps)[:, None]).sum(1)
        x = torch.cat([x[t, :size] for t, size in enumerate(sizes.tolist())])
    keywords |= {name: True for name in ("states", "reverse") if name in request}
    return cell, x.requires_grad_(), make_state(cell, rows, dtype), keywords


def answers(cell, x, state, keywords, kernel):
    """Everything a scan gives, by name, with the gradients of a random weighting of it."""
    run = scan(cell, x, state, **keywords, kernel=kernel)
    named = {"outputs": run.outputs, **{f"{n}_n": v for n, v in run.state._asdict().items()}}
    if run.states is not None:
        named |= {f"every {n}": v for n, v in run.states._asdict().items()}
    g = torch.Generator().manual_seed(7)
    loss = sum((v * torch.randn(v.shape, generator=g, dtype=torch.float64).to(v.dtype)).sum() for v in named.values())
    wanted = {"x": x, **{f"{n}_0": v for n, v in state._asdict().items()}, **weights_of(cell)}
    grads = torch.autograd.grad(loss, list(wanted.values()))
    return named | {f"gradient of {n}": v for n, v in zip(wanted, grads, strict=True)}


def assert_is_the_float64_loop(kernel, row, shape, request, dtype, option=None):
    """Outputs, states and gradients of a kernel beside the loop's in float64, each within the kernel's tolerance."""
    cell, x, state, keywords = case(row, shape, request, dtype, option)
    got = answers(cell, x, state, keywords, kernel.name)
    double = type(cell)(**{n: v.double() for n, v in weights_of(cell).items()})
    want = answers(double, x.double(), cell.State(*(p.double() for p in state)), keywords, "loop")
    kind = str(dtype).removeprefix("torch.")
    limit = SCAN[kernel.name, kind] if cell.gain_ih is None else SCAN_NORMED[kind]
    wrong = {name: e for name in want if not (e := error(got[name], want[name])) <= limit}
    assert not wrong, f"{kernel.name} differs from the loop by more than {limit}: {wrong}"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: "+".join(r) or "plain")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("row", **by(CELL_ROWS))
@pytest.mark.parametrize("kernel", **by(KERNEL_ROWS))
def test_kernel_is_the_float64_loop(kernel, row, shape, request_, dtype):
    if not all(getattr(kernel, name) for name in request_):
        with pytest.raises(UnsupportedError, match=r"loop.*can"):
            scan(*case(row, shape, request_, dtype)[:3], **case(row, shape, request_, dtype)[3], kernel=kernel.name)
        return
    assert_is_the_float64_loop(kernel, row, shape, request_, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("time", TIMES, ids=lambda r: "+".join(r) or "plain")
@pytest.mark.parametrize(("row", "option"), PAIRS, ids=lambda v: v.name)
@pytest.mark.parametrize("kernel", **by(FAST))
def test_kernel_with_an_option_is_the_float64_loop(kernel, row, option, time, dtype):
    if kernel.options is None or (option.name in kernel.options and not {"lengths", "states"} & {*time}):
        assert_is_the_float64_loop(kernel, row, (7, 5, 3, 19), time, dtype, option)
        return
    cell, x, state, keywords = case(row, (7, 5, 3, 19), time, dtype, option)
    with pytest.raises(UnsupportedError, match=r"torch's ops have no"):
        scan(cell, x, state, **keywords, kernel=kernel.name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("time", TIMES[2:], ids="+".join)
@pytest.mark.parametrize("row", **by(CELL_ROWS))
@pytest.mark.parametrize("kernel", **by(FAST))
def test_kernel_in_reverse_and_packed_is_the_float64_loop(kernel, row, time, dtype):
    time = tuple(name for name in time if getattr(kernel, name, True))
    assert_is_the_float64_loop(kernel, row, (7, 5, 3, 19), time, dtype)


def check_gradients(check, kernel, cell, x, state, keywords):
    """gradcheck or gradgradcheck of all that a scan gives to all that it takes."""
    names, parts = list(weights_of(cell)), len(state)

    def f(x, *rest):
        weights = dict(zip(names, rest[parts:], strict=True))
        run = scan(type(cell)(**weights), x, cell.State(*rest[:parts]), **keywords, kernel=kernel.name)
        return (run.outputs, *run.state, *(run.states or ()))

    x = torch.nan_to_num(x.detach()).requires_grad_()
    assert check(f, (x, *state, *weights_of(cell).values()), check_batched_grad=False)


@pytest.mark.parametrize("row", **by(CELL_ROWS))
@pytest.mark.parametrize("kernel", **by(FAST))
def test_gradcheck(kernel, row):
    time = ("lengths", "reset", "states") if kernel.lengths else ()
    check_gradients(torch.autograd.gradcheck, kernel, *case(row, (4, 3, 2, 5), time, torch.float64))


@pytest.mark.parametrize("time", [("lengths", "reset", "states"), ("packed", "reverse")], ids="+".join)
@pytest.mark.parametrize(("row", "option"), PAIRS, ids=lambda v: v.name)
@pytest.mark.parametrize("kernel", **by([row for row in KERNEL_ROWS if row.options is None]))
def test_gradcheck_of_every_option(kernel, row, option, time):
    check_gradients(torch.autograd.gradcheck, kernel, *case(row, (4, 3, 2, 3), time, torch.float64, option))


@pytest.mark.parametrize(("row", "option"), PAIRS, ids=lambda v: v.name)
@pytest.mark.parametrize("kernel", **by([row for row in KERNEL_ROWS if row.options is None]))
def test_second_derivatives_of_every_option(kernel, row, option):
    time = ("lengths", "reset", "states")
    check_gradients(torch.autograd.gradgradcheck, kernel, *case(row, (3, 2, 1, 2), time, torch.float64, option))


@pytest.mark.parametrize("row", **by(CELL_ROWS))
@pytest.mark.parametrize("kernel", **by(KERNEL_ROWS))
def test_two_halves_with_carried_state_are_the_whole(kernel, row):
    cell, x, state, _ = case(row, (9, 3, 5, 7), (), torch.float64)
    whole = scan(cell, x, state, kernel=kernel.name)
    first = scan(cell, x[:4], state, kernel=kernel.name)
    second = scan(cell, x[4:], first.state, kernel=kernel.name)
    limit = SCAN["cpu", "float64"]
    assert error(torch.cat([first.outputs, second.outputs]), whole.outputs) <= limit
    assert all(error(a, b) <= limit for a, b in zip(second.state, whole.state, strict=True))


@pytest.mark.parametrize("row", **by(CELL_ROWS))
@pytest.mark.parametrize("kernel", **by([row for row in KERNEL_ROWS if row.reset]))
def test_a_reset_is_a_new_sequence(kernel, row):
    cell, x, state, _ = case(row, (9, 1, 5, 7), (), torch.float64)
    reset = torch.zeros(1, 9, dtype=torch.bool)
    reset[0, 4] = True
    zero = cell.State(*(torch.zeros_like(part) for part in state))
    whole = scan(cell, x, state, reset=reset, kernel=kernel.name)
    parts = [scan(cell, x[:4], state, kernel="loop"), scan(cell, x[4:], zero, kernel="loop")]
    assert error(whole.outputs, torch.cat([part.outputs for part in parts])) <= SCAN["cpu", "float64"]
    grad = torch.autograd.grad(whole.outputs[4:].sum(), x, retain_graph=True)[0]
    assert (grad[:4] == 0).all(), "no gradient crosses a reset"


@pytest.mark.parametrize("row", **by(CELL_ROWS))
@pytest.mark.parametrize("kernel", **by([row for row in KERNEL_ROWS if row.lengths]))
def test_padding_and_batch_order_change_nothing(kernel, row):
    cell, x, state, keywords = case(row, (7, 5, 3, 7), ("lengths",), torch.float64)
    got = answers(cell, x, state, keywords, kernel.name)
    assert not any(value.isnan().any() for value in got.values()), "NaN of the padding leaked"
    for b, length in enumerate(keywords["lengths"].tolist()):
        assert (got["outputs"][length:, b] == 0).all()
        assert (got["gradient of x"][length:, b] == 0).all()
        if length == 0:
            assert all(torch.equal(got[f"{n}_n"][b], part[b]) for n, part in state._asdict().items())
    order = torch.randperm(5, generator=torch.Generator().manual_seed(0))
    mixed = scan(
        cell,
        x[:, order],
        cell.State(*(part[order] for part in state)),
        lengths=keywords["lengths"][order],
        kernel=kernel.name,
    )
    assert error(mixed.outputs, got["outputs"][:, order]) <= SCAN["cpu", "float64"]


@pytest.mark.parametrize("row", **by(CELL_ROWS))
@pytest.mark.parametrize("kernel", **by([row for row in KERNEL_ROWS if row.lengths]))
def test_a_neighbour_that_is_nan_touches_no_other_row(kernel, row):
    cell, x, state, _ = case(row, (7, 5, 3, 19), (), torch.float64)
    want = scan(cell, x, state, kernel=kernel.name).outputs
    sick = x.detach().clone()
    sick[2, 1] = float("nan")
    sick.requires_grad_()
    got = scan(cell, sick, state, kernel=kernel.name).outputs
    others = [0, 2, 3, 4]
    assert error(got[:, others], want[:, others]) <= SCAN["cpu", "float64"]
    grads = [torch.autograd.grad(a[:, others].square().sum(), b)[0][:, others] for a, b in ((got, sick), (want, x))]
    assert error(*grads) <= SCAN["cpu", "float64"]


@needs_core
@pytest.mark.parametrize("row", **by(CELL_ROWS))
def test_threads_share_the_rows(row):
    cell, x, state, keywords = case(row, (63, 31, 63, 63), ("lengths", "reset", "states"), torch.float64)
    one = answers(cell, x, state, keywords, "cpu")
    torch.set_num_threads(3)
    try:
        three = answers(cell, x, state, keywords, "cpu")
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(one[name], three[name]) for name in one if not name.startswith("gradient"))
    assert all(error(three[name], one[name]) <= SCAN["cpu", "float64"] for name in one)

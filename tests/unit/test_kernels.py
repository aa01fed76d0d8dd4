"""The door: which kernel it takes, and what it says when it can't."""

import os
import warnings
from pathlib import Path

import pytest
import torch

from recurra import nn
from recurra.errors import DataError, RecipeError, StateError, UnsupportedError
from recurra.kernels import KERNELS, cpu, release_memory, scan
from recurra.kernels.scan import _say_once
from zoo import CELL_ROWS, KERNEL_ROWS, by, make_cell, make_state, needs_core

LSTM = CELL_ROWS[2]


def setting(dtype=torch.float64, steps=4, rows=3):
    cell = make_cell(LSTM, 5, 7, dtype)
    return cell, torch.randn(steps, rows, 5).to(dtype), make_state(cell, rows, dtype)


def test_every_kernel_has_a_row():
    assert {row.name for row in KERNEL_ROWS} == set(KERNELS)


@needs_core
def test_auto_takes_the_fastest_that_covers_and_says_why():
    cell, x, state = setting()
    assert scan(cell, x, state).kernel == "cpu"
    run = scan(cell, x, state, trace=True)
    assert run.kernel == "loop"
    assert "not 'cpu': it does not give the gates" in run.why
    half = scan(*setting(torch.bfloat16))
    assert half.kernel == "aten"
    assert "float32 or float64" in half.why


def silent(call):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call()


@needs_core
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("options", "keywords", "reason"),
    [
        ({}, {"lengths": [4, 2, 1]}, "lengths"),
        ({"layer_norm": True}, {}, "LayerNorm"),
        ({"zoneout_h": 0.1}, {}, "zoneout"),
    ],
    ids=["lengths", "layer_norm", "zoneout"],
)
def test_a_slow_loop_is_said_once(options, keywords, reason, dtype):
    _say_once.cache_clear()
    layer, x = nn.GRU(5, 7, dtype=dtype, **options), torch.zeros(4, 3, 5, dtype=dtype)
    text = f"a plain loop runs, .* not 'cpu': .* not {dtype}; not 'aten': .* no {reason}; kernel='loop' takes it"
    with pytest.warns(UserWarning, match=text) as said:
        layer(x, **keywords)
    assert [warning.filename for warning in said] == [__file__]
    silent(lambda: layer(x, **keywords))
    _say_once.cache_clear()
    layer.kernel = "loop"
    silent(lambda: layer(x, **keywords))


@pytest.mark.parametrize("kernel", ["aten", "loop"])
def test_a_kernel_that_computes_nothing_again_says_so_once(kernel):
    _say_once.cache_clear()
    layer, x = nn.GRU(5, 7, checkpoint="gates", kernel=kernel), torch.zeros(4, 3, 5)
    with torch.no_grad():
        silent(lambda: layer(x))
    text = f"checkpoint= does nothing in the kernel '{kernel}', which runs; torch.utils.checkpoint works with any"
    with pytest.warns(UserWarning, match=text) as said:
        layer(x)
    assert [warning.filename for warning in said] == [__file__]
    silent(lambda: layer(x))


@needs_core
def test_a_kernel_that_can_not_names_those_that_can():
    cell, x, state = setting()
    with pytest.raises(
        UnsupportedError, match=r"'aten' can't run this: torch's ops have no lengths; kernel= cpu, loop or auto"
    ):
        scan(cell, x, state, lengths=torch.tensor([1, 2, 3]), kernel="aten")
    with pytest.raises(RecipeError, match=r"kernel 'gpu' is unknown; known: auto, cpu, aten .*cuDNN on a GPU"):
        scan(cell, x, state, kernel="gpu")
    with pytest.raises(RecipeError, match="kernel None is unknown"):
        scan(cell, x, state, kernel=None)


def test_without_core_the_cpu_kernel_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(cpu, "_core", None)
    cell, x, state = setting()
    assert scan(cell, x, state).kernel == "aten"
    with pytest.raises(UnsupportedError, match=r"C\+\+20 compiler"):
        scan(cell, x, state, kernel="cpu")


@pytest.mark.parametrize("row", **by(CELL_ROWS))
def test_trace_is_the_gates_by_name(row):
    cell = make_cell(row, 5, 7, torch.float64)
    x, state = torch.randn(4, 3, 5, dtype=torch.float64), make_state(cell, 3, torch.float64)
    run = scan(cell, x, state, trace=True, states=True, lengths=torch.tensor([4, 2, 0]))
    assert tuple(run.trace) == cell.gates
    assert all(gate.shape == (4, 3, 7) for gate in run.trace.values())
    assert torch.allclose(run.trace[cell.gates[0]][0, :2], cell.named_gates(x[0], state)[cell.gates[0]][:2])
    assert all((gate[2:, 1] == 0).all() for gate in run.trace.values())
    assert torch.equal(run.states.h, run.outputs)


@pytest.mark.parametrize("row", **by([row for row in KERNEL_ROWS if row.states]))
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_outputs_state_and_states_share_no_memory(row, training):
    cell, x, state = setting(steps=1)
    with torch.set_grad_enabled(training):
        run = scan(cell, x, state, states=True, kernel=row.name)
    values = [run.outputs, *run.state, *run.states]
    assert len({value.untyped_storage().data_ptr() for value in values}) == len(values)
    if training:
        want = torch.autograd.grad(run.states.h.sum(), cell.weight_ih, retain_graph=True)[0]
        run.outputs.zero_()
        assert torch.equal(torch.autograd.grad(run.states.h.sum(), cell.weight_ih)[0], want)


@needs_core
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read as Linux tells it")
def test_the_memory_of_a_training_can_be_released():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    layer = nn.LSTM(8, 64)
    given_back = []
    for frames in (
        258,
        250,
        250,
        250,
    ):  # 5 floats a unit and frame are saved: 33 MB, then 32, which malloc would keep then
        layer(torch.zeros(100, frames, 8))[0].sum().backward()
        before = resident()
        release_memory()
        given_back.append(before - resident())
    assert max(given_back[1:]) > 25e6  # a system short of memory may have taken some away before
    layer(torch.zeros(100, 250, 8))[0].sum().backward()


@needs_core
def test_no_gradient_wanted_none_kept():
    cell, x, state = setting()
    with torch.no_grad():
        run = scan(cell, x, state, states=True, kernel="cpu")
    assert not run.outputs.requires_grad
    assert torch.equal(run.outputs, scan(cell, x, state, kernel="cpu").outputs)


def test_the_loop_gives_a_second_derivative():
    cell, x, state = setting()
    outputs = scan(cell, x, state, kernel="loop").outputs
    (grad,) = torch.autograd.grad(outputs.sum(), cell.weight_ih, create_graph=True)
    grad.sum().backward()
    assert cell.weight_ih.grad.isfinite().all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(4, 3, 6, dtype=torch.float64)}, DataError, r"x must be \[T, B, 5\], not \[4, 3, 6\]"),
        ({"x": torch.zeros(0, 3, 5, dtype=torch.float64)}, DataError, "at least 1 step"),
        ({"lengths": torch.tensor([1, 2])}, DataError, r"lengths must be \[3\] whole numbers"),
        ({"lengths": torch.tensor([1, 2, 5])}, DataError, "between 0 and 4, not 1 to 5"),
        ({"reset": torch.zeros(4, 3, dtype=torch.bool)}, DataError, r"reset must be \[3, 4\] \(batch first\)"),
        ({"lengths": torch.ones(3, dtype=torch.bool)}, DataError, r"lengths must be \[3\] whole numbers"),
        ({"recurrent_dropout": 2.0}, RecipeError, "recurrent_dropout must be a probability between 0 and 1, not 2.0"),
        ({"zoneout_c": 0.1, "training": True}, RecipeError, "draw their masks from seed="),
        (
            {"seed": torch.tensor([1, 2])},
            RecipeError,
            r"seed must be an int64 scalar, .*, not \[2\] torch.int64 on cpu",
        ),
        ({"seed": torch.tensor(1.5)}, RecipeError, r"seed must be an int64 scalar, .*, not \[\] torch.float32"),
        ({"seed": 3}, RecipeError, "seed must be an int64 scalar, .*, not 3"),
        ({"checkpoint": "every"}, RecipeError, "checkpoint must be 'none', 'gates' or 'every k'"),
        ({"batch_sizes": torch.tensor([3, 1])}, DataError, r"x must be \[N, 5\], not \[4, 3, 5\]"),
        ({"state": (torch.zeros(3, 7),)}, StateError, r"is \(h, c\)"),
        ({"state": (torch.zeros(3, 7), torch.zeros(3, 8))}, StateError, r"state c must be \[3, 7\], not \[3, 8\]"),
    ],
)
def test_wrong_input_is_named(change, error, message):
    cell, x, state = setting()
    arguments = {"x": x, "state": state, **change}
    with pytest.raises(error, match=message):
        scan(cell, **arguments)


def test_wrong_packed_input_is_named():
    cell, x, state = setting()
    packed, sizes = x.reshape(12, 5), torch.tensor([3, 3, 3, 3])
    with pytest.raises(DataError, match=r"a packed x has no lengths: pass x padded, \[T, B, I\]"):
        scan(cell, packed, state, batch_sizes=sizes, lengths=torch.tensor([4, 4, 4]))
    with pytest.raises(DataError, match="a packed x has no reset"):
        scan(cell, packed, state, batch_sizes=sizes, reset=torch.zeros(3, 4, dtype=torch.bool))
    with pytest.raises(DataError, match="batch_sizes must sum to the 12 frames of x, not 9"):
        scan(cell, packed, state, batch_sizes=sizes[:3])


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        (torch.tensor([3.0, 3.0, 3.0, 3.0]), r"\[4\] torch.float32 on cpu"),
        (torch.tensor([[3, 3, 3, 3]]), r"\[1, 4\] torch.int64 on cpu"),
        (torch.tensor(12), r"\[\] torch.int64 on cpu"),
        (torch.tensor([3, 3, 3, 3], device="meta"), r"\[4\] torch.int64 on meta"),
        ([3, 3, 3, 3], r"\[3, 3, 3, 3\]"),
    ],
)
def test_batch_sizes_of_another_kind_are_named(sizes, found):
    cell, x, state = setting()
    with pytest.raises(DataError, match=rf"batch_sizes must be \[T\] whole numbers \(int64\) on the CPU, not {found}$"):
        scan(cell, x.reshape(12, 5), state, batch_sizes=sizes)


def test_a_cell_without_c_has_no_zoneout_of_it():
    cell = make_cell(CELL_ROWS[3], 5, 7, torch.float64)
    with pytest.raises(RecipeError, match="zoneout_c is for a cell with a c, not for 'gru'; use zoneout_h"):
        scan(cell, torch.zeros(4, 3, 5, dtype=torch.float64), make_state(cell, 3, torch.float64), zoneout_c=0.1)


@needs_core
@pytest.mark.parametrize(
    ("row", "further", "keywords", "reason"),
    [
        (CELL_ROWS[2], ("peephole",), {}, "peepholes"),
        (CELL_ROWS[2], ("weight_hr",), {}, "fast projection on a CPU"),
        (CELL_ROWS[3], ("gain_ih", "gain_hh"), {}, "LayerNorm"),
        (CELL_ROWS[3], (), {"zoneout_h": 0.1}, "zoneout"),
        (CELL_ROWS[3], (), {"recurrent_dropout": 0.1, "training": True, "seed": torch.tensor(1)}, "recurrent dropout"),
    ],
)
def test_what_torchs_ops_lack(row, further, keywords, reason):
    cell = make_cell(row, 5, 7, torch.float64, further=further)
    x, state = torch.zeros(4, 3, 5, dtype=torch.float64), make_state(cell, 3, torch.float64)
    with pytest.raises(UnsupportedError, match=f"torch's ops have no {reason}; kernel= cpu, loop or auto can"):
        scan(cell, x, state, **keywords, kernel="aten")

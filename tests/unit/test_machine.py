"""`recurra kernels`: what a machine gives. No test here depends on how fast it is."""

import json
import os
import subprocess
import sys

import pytest
import torch

from forecasters import command
from recurra import machine
from recurra.cells import CELLS
from recurra.kernels import KERNELS
from zoo import needs_core

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from recurra import cli
sys.argv = ["recurra", "kernels"]
cli.main()
"""


def test_every_cell_and_option_has_a_kernel_and_a_reason():
    found = json.loads(command("kernels", "--no-measure", "--json").out)
    assert found["threads"] == torch.get_num_threads()
    assert found["versions"]["torch"] == torch.__version__
    assert found["speed"] == []
    assert {row["cell"] for row in found["kernels"] if row["option"] == "plain"} == set(CELLS)
    assert all(row["kernel"] in KERNELS and row["why"] for row in found["kernels"])
    traced = [row for row in found["kernels"] if row["option"] == "traced gates" and row["device"] == "cpu"]
    assert {row["kernel"] for row in traced} == {"loop"}
    assert all("trace=True" in row["why"] for row in traced)
    slow = [row for row in found["kernels"] if row["option"] in ("bfloat16 with lengths", "bfloat16 with zoneout")]
    assert len(slow) == 2 * len(CELLS) * len({row["device"] for row in found["kernels"]})
    assert all(row["kernel"] == "loop" and "several times slower" in row["why"] for row in slow)


def test_the_text_says_the_same():
    ran = command("kernels", "--no-measure")
    assert ran.code == 0
    for row in machine.survey(measure=False)["kernels"]:
        assert row["why"] in ran.out
        at = [line for line in ran.out.splitlines() if line.endswith(f"-> {row['kernel']}")]
        assert any(row["cell"] in line for line in at)


@needs_core
def test_an_unknown_instruction_set_is_refused():
    ran = subprocess.run(
        [sys.executable, "-m", "recurra", "kernels", "--no-measure"],
        env=os.environ | {"RECURRA_ISA": "avx-2"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 2
    assert ran.stderr.splitlines() == ["recurra: RECURRA_ISA 'avx-2' is unknown; known: portable, avx2, avx512"]
    call = "import torch, recurra.nn; recurra.nn.GRU(4, 8)(torch.zeros(5, 3, 4))"
    ran = subprocess.run([sys.executable, "-c", call], env=os.environ | {"RECURRA_ISA": "avx-2"}, capture_output=True)
    assert ran.stderr.splitlines()[-1].startswith(b"recurra.errors.RecipeError: RECURRA_ISA 'avx-2' is unknown")


def test_measured_beside_torch(monkeypatch):
    monkeypatch.setattr(machine, "SHAPES", ((3, 2, 2, 4, 2),))
    monkeypatch.setattr(machine, "SECONDS", 0.0)
    rows = json.loads(command("kernels", "--json").out)["speed"]
    assert [row["mode"] for row in rows] == ["inference", "training"]
    assert all(row["ratio"] > 0 and row["torch_ms"] > 0 and row["recurra_ms"] > 0 for row in rows)
    text = command("kernels").out
    assert "3,2,2,4,2" in text
    assert "(medians of the rounds; ratio: of each round's torch / recurra)" in text


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("training", [False, True])
def test_what_is_measured_is_the_same_work(cell, training):
    calls = machine.against_torch(cell, (5, 3, 2, 4, 2), training, x_grad=True)
    theirs, ours = calls["torch"](), calls["recurra"]()
    assert len(theirs) == len(ours) == (1 + 2 * 4 + 1 if training else 1)
    for a, b in zip(theirs, ours, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)
    assert calls["recurra"]()[-1] is not ours[-1], "fresh gradients each time"


def test_in_turns_measures_each_the_same_number_of_times():
    called = []
    calls = {name: (lambda name=name: called.append(name) or ()) for name in ("a", "b")}
    times = machine.in_turns(calls, 0.0, least=4)
    assert {name: len(found) for name, found in times.items()} == {"a": 4, "b": 4}
    assert {"a", "b"} == set(called)


def test_without_torch_one_line():
    ran = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert ran.stderr.splitlines() == [
        "recurra: the kernels need torch, which is not installed: pip install 'recurra[train]'"
    ]

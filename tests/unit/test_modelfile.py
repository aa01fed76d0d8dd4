"""A model folder is written whole or not at all, and each way of breaking it is told in one clear line."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recurra import load, modelfile
from recurra.errors import ModelFileError

MANIFEST = {
    "task": "forecast",
    "codec": {"kind": "series", "scale": [0.1, 1 / 3]},
    "layers": [{"kind": "lstm", "hidden": 3}],
    "config": {"horizon": 2},
    "data": "ab" * 32,
}
WEIGHTS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b": np.array([1.5])}
FILES = {"README.md": "# A model\n", "metrics.json": "{}", "tokens.bin": b"\x00\xff"}


@pytest.fixture
def model(tmp_path):
    return modelfile.write(tmp_path / "model", MANIFEST, WEIGHTS, FILES).path


def refused(path: Path, *words: str, task: str | None = None) -> None:
    with pytest.raises(ModelFileError) as caught:
        modelfile.read(path, task)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def edit(model: Path, change, seal: bool = False) -> None:
    manifest = json.loads((model / "model.json").read_text())
    change(manifest)
    if seal:
        manifest["digest"] = modelfile._manifest_digest(manifest)
    (model / "model.json").write_text(json.dumps(manifest))


def test_round_trip(model):
    got = modelfile.read(model, "forecast")
    assert got.task == "forecast"
    assert got.manifest["format"] == modelfile.FORMAT == 1
    assert {k: got.manifest[k] for k in MANIFEST} == MANIFEST
    assert got.weights.keys() == WEIGHTS.keys()
    for name, value in WEIGHTS.items():
        assert got.weights[name].dtype == value.dtype
        np.testing.assert_array_equal(got.weights[name], value)
    assert got.read_text("README.md") == FILES["README.md"]
    assert got.read_bytes("tokens.bin") == FILES["tokens.bin"]
    assert modelfile.info(model) == got.manifest
    assert sorted(os.listdir(model.parent)) == ["model"]


def test_shapes_and_keys_survive(tmp_path):
    manifest = {**MANIFEST, "config": {10: (1, 2), 9: "Größe"}}
    path = modelfile.write(tmp_path / "model", manifest, {"scalar": np.array(3.0), "none": np.zeros((0, 2))}).path
    got = modelfile.read(path)
    assert got.manifest["config"] == {"10": [1, 2], "9": "Größe"}
    assert got.weights["scalar"].shape == ()
    assert got.weights["none"].shape == (0, 2)


def test_weights_are_numbers(tmp_path):
    for bad in (np.array(["a"]), np.array([None])):
        with pytest.raises(ModelFileError, match="plain numeric arrays"):
            modelfile.write(tmp_path / "model", MANIFEST, {"w": bad})


def test_no_place_to_write(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelFileError, match="can't be written"):
        modelfile.write(tmp_path / "file" / "model", MANIFEST, WEIGHTS)


def test_digest_covers_what_decides_the_outputs(model, tmp_path):
    digest = modelfile.read(model).digest
    assert len(digest) == 64
    (model / "README.md").write_text("corrected by hand")
    assert modelfile.read(model).digest == digest
    assert modelfile.read(model).read_text("README.md") == "corrected by hand"

    def of(name, manifest, weights, files=FILES):
        return modelfile.write(tmp_path / name, manifest, weights, files).digest

    assert of("same", {**MANIFEST, "config": {"other": 1}, "data": "no"}, WEIGHTS) == digest
    assert modelfile.read(tmp_path / "same").digest == digest
    assert of("weights", MANIFEST, {**WEIGHTS, "b": np.array([1.25])}) != digest
    for key, value in (("task", "detect"), ("codec", {}), ("layers", [])):
        assert of(key, {**MANIFEST, key: value}, WEIGHTS) != digest
    assert of("scores", MANIFEST, WEIGHTS, {**FILES, "metrics.json": "{1: 2}"}) == digest
    assert of("tokens", MANIFEST, WEIGHTS, {**FILES, "tokens.bin": b"other"}) != digest


def test_no_such_folder(model):
    refused(model.with_name("modle"), "no such model folder", "did you mean 'model'?")
    refused(model / "no" / "where", "no such model folder")


def test_not_a_model_folder(model, tmp_path):
    refused(tmp_path, "no model folder", "model.json")
    refused(model / "model.json", "is a file")


def test_truncated_weights(model):
    blob = (model / "weights.safetensors").read_bytes()
    (model / "weights.safetensors").write_bytes(blob[:-3])
    refused(model, "weights.safetensors", "truncated or was edited")


def test_edited_weights(model):
    blob = bytearray((model / "weights.safetensors").read_bytes())
    blob[-1] ^= 1
    (model / "weights.safetensors").write_bytes(blob)
    refused(model, "weights.safetensors", "edited")


@pytest.mark.parametrize("key", ["task", "codec", "layers", "config", "data", "files"])
def test_edited_manifest(model, key):
    edit(model, lambda m: m.update({key: "other"}))
    refused(model, "model.json", "was edited")


def test_edited_further_file(model):
    (model / "metrics.json").write_text('{"mase": 0}')
    with pytest.raises(ModelFileError, match="edited"):
        modelfile.read(model).read_bytes("metrics.json")


def test_newer_format(model):
    edit(model, lambda m: m.update(format=7))
    refused(model, "this file has format 7, this recurra reads up to 1: upgrade recurra")


@pytest.mark.parametrize("number", [None, "1", 0, True, 1.5])
def test_no_format_number(model, number):
    edit(model, lambda m: m.update(format=number), seal=True)
    refused(model, "no format number")


def test_another_task(model):
    refused(model, "'forecast'", "not 'classify'", task="classify")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '"x"', "[]"])
def test_invalid_json(model, text):
    (model / "model.json").write_text(text)
    refused(model, "model.json")


def test_not_text(model):
    (model / "model.json").write_bytes(b"\xff\xfe{}")
    refused(model, "not valid JSON")


@pytest.mark.parametrize("name", ["weights.safetensors", "metrics.json", "README.md"])
def test_missing_file(model, name):
    (model / name).unlink()
    refused(model, f"lacks its file '{name}'")


def test_lacking_key(model):
    edit(model, lambda m: m.pop("codec"))
    refused(model, "lacks codec")


def test_nan_in_manifest(model):
    edit(model, lambda m: m.update(config=float("nan")))
    refused(model, "was edited")


def test_path_outside_the_folder(model):
    edit(model, lambda m: m["files"].update({"../other": "00"}), seal=True)
    refused(model, "model.json")


def test_unknown_further_file(model):
    with pytest.raises(ModelFileError, match=r"did you mean 'tokens\.bin'"):
        modelfile.read(model).read_bytes("token.bin")


def test_existing_model_only_with_overwrite(model):
    with pytest.raises(ModelFileError, match="overwrite=True"):
        modelfile.write(model, MANIFEST, WEIGHTS)
    assert "README.md" in os.listdir(model)
    modelfile.write(model, MANIFEST, {"b": np.array([2.0])}, overwrite=True)
    assert modelfile.read(model).weights["b"][0] == 2.0
    assert sorted(os.listdir(model.parent)) == ["model"]


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "dead link"])
def test_what_is_no_model_is_never_overwritten(tmp_path, kind):
    path = tmp_path / "mine"
    if kind == "file":
        path.write_text("mine")
    elif kind == "dead link":
        path.symlink_to("nowhere")
    else:
        path.mkdir()
        if kind == "folder":
            (path / "thesis.tex").write_text("mine")
    with pytest.raises(ModelFileError, match="never overwritten"):
        modelfile.write(path, MANIFEST, WEIGHTS, overwrite=True)
    assert kind != "folder" or (path / "thesis.tex").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["mine"]


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors", "a/b", "../x", "..", ".hidden"])
def test_names_of_further_files(tmp_path, name):
    with pytest.raises(ModelFileError, match="plain name"):
        modelfile.write(tmp_path / "model", MANIFEST, WEIGHTS, {name: "x"})


def test_manifest_is_checked(tmp_path):
    with pytest.raises(ModelFileError, match="lacks codec, layers"):
        modelfile.write(tmp_path / "model", {"task": "x", "config": {}, "data": ""}, WEIGHTS)
    for bad in (float("inf"), object(), np.float32(1)):
        with pytest.raises(ModelFileError, match="JSON"):
            modelfile.write(tmp_path / "model", {**MANIFEST, "config": bad}, WEIGHTS)
    assert os.listdir(tmp_path) == []


def test_kill_in_the_midst_of_writing(tmp_path):
    """The process stops inside the write, with the weights on disk, and is killed: nothing is at the final path."""
    script = f"""
import os, sys, time
import numpy as np
from recurra import modelfile
def stop(folder):
    print("written", flush=True)
    time.sleep(60)
modelfile._sync = stop
modelfile.write({str(tmp_path / "model")!r}, {MANIFEST!r}, {{"w": np.zeros(1000)}})
"""
    source = str(Path(modelfile.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": source}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "model").exists()
    assert all(name.startswith(".model.") for name in os.listdir(tmp_path))
    modelfile.write(tmp_path / "model", MANIFEST, WEIGHTS)  # the remains are in nobody's way
    assert modelfile.read(tmp_path / "model").task == "forecast"


GOLDEN = Path(__file__).parents[1] / "golden" / "format1" / "model"


@pytest.mark.parametrize(
    ("weights", "layers", "words"),
    [
        ({"read.weight": None}, [], "it lacks 'read.weight'"),
        ({"core.weight_hh_l0": None}, [], "weight_hh_l0 is missing"),
        ({"core.gain_ih_l0": np.ones(16)}, [], "no place for the weight gain_ih_l0"),
        ({"core2.weight_ih_l0": np.ones((4, 4))}, [], "reads the weight core2.weight_ih_l0: upgrade recurra"),
        ({}, [{"kind": "linear", "name": "later"}], "has the layer 'later', but no weight is under this name"),
    ],
)
def test_layers_and_weights_must_agree(tmp_path, weights, layers, words):
    """A model that would be played without one of its layers, or weights, is refused; None: the weight is left out."""
    file = modelfile.read(GOLDEN)
    arrays = {name: array for name, array in (file.weights | weights).items() if array is not None}
    manifest = {key: file.manifest[key] for key in MANIFEST} | {"layers": file.manifest["layers"] + layers}
    modelfile.write(tmp_path / "model", manifest, arrays)
    with pytest.raises(ModelFileError) as caught:
        load(tmp_path / "model")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)

"""The saved model: a folder of JSON + safetensors. Reading it runs no code from it, and an edited or truncated file
is refused.

    model.json            format, task, created, library, codec, layers, config, data, files (name -> SHA-256), digest
    weights.safetensors   name -> array
    metrics.json, README.md, ...   whatever `write` was given

Two digests: `digest` in model.json is the SHA-256 of its own canonical content, so that an edit shows;
`ModelFile.digest` covers only what decides the outputs (task, codec, layers, weights, the task's own files), so that a state stays bound to
its model when the README is corrected.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from recurra.errors import ModelFileError, nearest

FORMAT = 1  # raise it when an older recurra could not read the new folder; keep reading the old (tests/golden)
MANIFEST, WEIGHTS = "model.json", "weights.safetensors"
OUTPUTS = ("task", "codec", "layers")  # the parts of the manifest that, with the weights, decide the outputs
REQUIRED = ("format", "task", "created", "library", "codec", "layers", "config", "data", "files", "digest")
METRICS = "metrics.json"
README = "README.md"  # for people: may be corrected by hand, so it is listed without a hash
PARTS = (WEIGHTS, METRICS, README)  # the files that every model may have; the others are the task's own


@dataclass(frozen=True)
class ModelFile:
    """A verified model folder. manifest: model.json.  weights: name -> array.  digest: of all that decides the
    outputs, hex.
    """

    path: Path
    manifest: dict[str, Any]
    weights: dict[str, np.ndarray] = field(repr=False)
    digest: str

    @property
    def task(self) -> str:
        """The name of the job that the model does."""
        return self.manifest["task"]

    def read_bytes(self, name: str) -> bytes:
        """One further file of the folder, verified; ModelFileError if the model has no such file, or it is missing or
        edited.
        """
        if name not in self.manifest["files"]:
            raise ModelFileError(f"{self.path} has no file '{name}': {nearest(name, self.manifest['files'])}")
        return _file(self.path, name, self.manifest["files"])

    def read_text(self, name: str) -> str:
        """The same as text (UTF-8)."""
        return self.read_bytes(name).decode("utf-8")


def write(
    path: str | os.PathLike[str],
    manifest: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    files: Mapping[str, str | bytes] | None = None,
    *,
    overwrite: bool = False,
) -> ModelFile:
    """Write a model folder, whole or not at all: into a temporary folder beside `path`, synced, then renamed.

    manifest: task, codec, layers, config and data (the training data's digest), JSON values; format, created,
    library, files and digest are added.  weights: name -> array.  files: name -> content, such as README.md and
    metrics.json.
    An existing model is replaced only with overwrite=True; anything else at `path` never.
    Raises ModelFileError: no room, a manifest that lacks a part or is no JSON, an array that safetensors can't hold,
    a folder that can't be written.
    """
    path, files = Path(path), dict(files or {})
    for name in files:
        if name in (MANIFEST, WEIGHTS) or Path(name).name != name or name.startswith("."):
            raise ModelFileError(
                f"'{name}' can't be a further file of a model: use a plain name other than {MANIFEST} and {WEIGHTS}"
            )
    check_room(path, overwrite)
    arrays = {name: np.asarray(value, order="C") for name, value in weights.items()}
    try:
        tensors = save(arrays)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        kinds = ", ".join(sorted({str(value.dtype) for value in arrays.values()}))
        raise ModelFileError(f"the weights must be plain numeric arrays, not {kinds}: convert them ({error})") from None
    blobs = {WEIGHTS: tensors, **{k: v.encode() if isinstance(v, str) else v for k, v in files.items()}}
    whole = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "library": _version(),
        **manifest,
        "files": {
            name: None if name == README else hashlib.sha256(blob).hexdigest() for name, blob in sorted(blobs.items())
        },
    }
    lacking = [key for key in REQUIRED if key not in whole and key != "digest"]
    if lacking:
        raise ModelFileError(f"the manifest lacks {', '.join(lacking)}: give every one")
    try:
        whole = json.loads(json.dumps(whole, allow_nan=False))  # as it will be read: lists, string keys
        whole["digest"] = _manifest_digest(whole)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"the manifest must hold finite JSON values: {error}") from None
    blobs[MANIFEST] = (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _place(path, blobs, overwrite)
    except OSError as error:
        raise ModelFileError(f"the model can't be written to {path}: {error.strerror}: choose another path") from error
    return ModelFile(path, whole, arrays, _output_digest(whole))


def read(path: str | os.PathLike[str], task: str | None = None) -> ModelFile:
    """Read and verify a model folder; `task` refuses a model of another task.

    Raises ModelFileError: no such folder, not a model, a newer format, edited, truncated, a missing file, another task.
    """
    path = Path(path)
    manifest = info(path)
    if task is not None and manifest["task"] != task:
        raise ModelFileError(
            f"{path} is a model for the task '{manifest['task']}', not '{task}': use it for '{manifest['task']}'"
        )
    blob = _file(path, WEIGHTS, manifest["files"])
    for name in manifest["files"]:
        if not (path / name).is_file():
            raise ModelFileError(f"{path} lacks its file '{name}': copy the whole folder again")
    try:
        weights = load(blob)
    except (SafetensorError, KeyError, ValueError) as error:  # pragma: no cover: the hash has passed
        raise ModelFileError(f"{path / WEIGHTS} is broken ({error}): copy the folder again") from None
    return ModelFile(path, manifest, weights, _output_digest(manifest))


def info(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The verified model.json of a model folder, without reading the weights. Raises ModelFileError as `read` does."""
    path = Path(path)
    if not path.is_dir():
        if path.exists():
            raise ModelFileError(f"{path} is a file: a model is a folder that holds {MANIFEST}")
        folder = path.parent
        models = (
            [p.name for p in folder.iterdir() if (p / MANIFEST).is_file() and p.name[0] != "."]
            if folder.is_dir()
            else []
        )
        raise ModelFileError(f"no such model folder: {path}: {nearest(path.name, models)}")
    if not (path / MANIFEST).is_file():
        raise ModelFileError(f"{path} is no model folder: it has no {MANIFEST}")
    where = path / MANIFEST
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{where} is not valid JSON ({str(error).splitlines()[0]}): copy the folder again"
        ) from None
    number = manifest.get("format") if isinstance(manifest, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ModelFileError(f"{where} has no format number: it is no model of recurra")
    if number > FORMAT:
        raise ModelFileError(
            f"{where}: this file has format {number}, this recurra reads up to {FORMAT}: upgrade recurra"
        )
    lacking = [key for key in REQUIRED if key not in manifest]
    if lacking:
        raise ModelFileError(
            f"{where} lacks {', '.join(lacking)}: it was edited or is incomplete: copy the folder again"
        )
    try:
        intact = manifest["digest"] == _manifest_digest(manifest)
    except (TypeError, ValueError):  # NaN, which json.loads takes
        intact = False
    names = manifest["files"]
    if not intact or not isinstance(names, dict) or WEIGHTS not in names or any(Path(n).name != n for n in names):
        raise ModelFileError(
            f"{where} was edited after it was written: its digest does not match: copy the folder again or retrain"
        )
    return manifest


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _manifest_digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical({k: v for k, v in manifest.items() if k != "digest"})).hexdigest()


def _output_digest(manifest: Mapping[str, Any]) -> str:
    files = {name: found for name, found in manifest["files"].items() if name not in PARTS}
    parts = [manifest["files"][WEIGHTS], *(manifest[key] for key in OUTPUTS), *([files] if files else [])]
    return hashlib.sha256(_canonical(parts)).hexdigest()


def _file(path: Path, name: str, hashes: Mapping[str, str | None]) -> bytes:
    """A file's content, refused where it is missing or its hash differs."""
    try:
        blob = (path / name).read_bytes()
    except FileNotFoundError:
        raise ModelFileError(f"{path} lacks its file '{name}': copy the whole folder again") from None
    expected = hashes[name]
    if expected is not None and hashlib.sha256(blob).hexdigest() != expected:
        raise ModelFileError(
            f"{path / name} is truncated or was edited: its SHA-256 is not the one in {MANIFEST}: copy the folder again"
        )
    return blob


def check_room(path: Path, overwrite: bool) -> None:
    """Raises ModelFileError where `write` would refuse `path`; call it before a long training run."""
    if not os.path.lexists(path):
        return
    if not (path / MANIFEST).is_file():
        raise ModelFileError(f"{path} exists and is no model folder: it is never overwritten: choose another path")
    if not overwrite:
        raise ModelFileError(f"{path} already holds a model: choose another path, or say overwrite=True (--overwrite)")


def _place(path: Path, blobs: Mapping[str, bytes], overwrite: bool) -> None:
    """Write the files into a temporary folder, make them durable, and put the folder at `path`."""
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    temporary.mkdir()
    try:
        for name, blob in blobs.items():
            with (temporary / name).open("wb") as file:
                file.write(blob)
                file.flush()
                os.fsync(file.fileno())
        _sync(temporary)
        check_room(path, overwrite)
        _rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _rename(temporary: Path, path: Path) -> None:
    """Put the finished folder at `path`; a model that is there steps aside first and is deleted last."""
    if not path.exists():
        os.rename(temporary, path)
        _sync(path.parent)
        return
    aside = path.parent / f".{path.name}.{secrets.token_hex(4)}.old"
    os.rename(path, aside)
    try:
        os.rename(temporary, path)
    except OSError:
        os.rename(aside, path)
        raise
    finally:
        _sync(path.parent)
        shutil.rmtree(aside, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Make a folder's entries durable (where the system lets folders be opened)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _version() -> str:
    try:
        return metadata.version("recurra")
    except metadata.PackageNotFoundError:
        return "unknown"

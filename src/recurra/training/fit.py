"""Train a recipe and write its model file: checkpoints on the way, the best kept, whole or not at all."""

import json
import logging
import os
import shutil
import time
import warnings
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, TQDMProgressBar

from recurra import modelfile
from recurra.config import dump
from recurra.errors import DataError, RecipeError, UnsupportedError
from recurra.runtime import model as runtime
from recurra.tasks.task import Core
from recurra.training.lightning import NonMonotone, Training, averaging
from recurra.training.prepare import PREPARE, Prepared
from recurra.training.recipe import Fit, Recipe, complete


def train(
    task: Any,
    data: Any,
    *,
    core: Core | None = None,
    fit: Fit | None = None,
    out: str | Path,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = True,
    devices: int = 1,
    nodes: int = 1,
) -> Any:
    """Train `task` on `data` and write the model folder `out`; returns the model, loaded by the runtime (None in the
    other processes of a distributed run).

    Four typed parts decide the run, e.g. train(Forecast(horizon=24), Series("data.csv"), core=Core(hidden=64),
    fit=Fit(seed=1), out="model"). While it runs, checkpoints lie in `<out>.training`; `resume` goes on from the last one
    there, with the same result as if nothing had happened. The model's `manifest["training"]["history"]` has a row for each
    epoch. `overwrite` allows an existing model, or the checkpoints of
    an interrupted run, to be replaced. It runs on `devices` devices of each of `nodes` machines.

    Raises DataError, RecipeError (an interrupted run lies there), ModelFileError (out exists).
    """
    recipe = complete(Recipe(task, data, core or Core(), fit or Fit()))
    there = torch.cuda.device_count() if torch.cuda.is_available() else os.cpu_count() or 1
    if not 1 <= devices <= there:
        raise RecipeError(f"devices = {devices}: this machine has {there}")
    if nodes < 1:
        raise RecipeError(f"nodes = {nodes}: must be at least 1")
    if nodes > 1 and not {"MASTER_ADDR", "SLURM_JOB_ID"} & os.environ.keys():
        raise RecipeError(
            f"nodes = {nodes}: start it on every machine with MASTER_ADDR, MASTER_PORT and NODE_RANK set, or under SLURM"
        )
    out = Path(out)
    modelfile.check_room(out, overwrite)
    prepared = PREPARE[recipe.name](recipe)
    if recipe.fit.average > 1 and prepared.validation is None:
        raise RecipeError(
            f"average = {recipe.fit.average:g}: the best epochs are told by a validation part, and there is none"
        )
    work = out.with_name(out.name + ".training")
    identity = _identity(recipe, prepared)
    checkpoint = _open(work, identity, resume=resume, overwrite=overwrite)
    module = Training(prepared.task, recipe.fit, prepared.train, prepared.validation)
    started = time.monotonic()
    with _quiet():
        trainer = _trainer(recipe.fit, work, prepared.validation is not None, progress, devices, nodes)
        try:
            trainer.fit(module, ckpt_path=str(checkpoint) if checkpoint else None)
        except RecipeError:  # a loss that is not finite: nothing there to go on from
            shutil.rmtree(work, ignore_errors=True)
            raise
        except SystemExit:  # what lightning makes of Ctrl-C and SIGTERM
            raise KeyboardInterrupt from None
    if trainer.is_global_zero:
        _keep_best(module, trainer)
        seconds = time.monotonic() - started
        model = _write(recipe, prepared, module, trainer, out, overwrite, seconds)
        shutil.rmtree(work, ignore_errors=True)
        return model
    return None


def _identity(recipe: Recipe, prepared: Prepared) -> dict[str, Any]:
    """What must be the same for a run to be resumed."""
    return {
        "task": recipe.name,
        "config": dump(recipe.task),
        "core": dump(recipe.core),
        "fit": dump(recipe.fit),
        "data": prepared.digest,
    }


def _open(work: Path, identity: dict[str, Any], *, resume: bool, overwrite: bool) -> Path | None:
    """The checkpoint to go on from, and a work folder that says whose it is."""
    note, last = work / "run.json", work / "last.ckpt"
    if resume:
        if not last.exists():
            raise RecipeError(f"nothing to resume: there is no checkpoint '{last}'; start without --resume")
        try:
            kept = dict(json.loads(note.read_text()))
            torch.load(last, map_location="cpu", weights_only=False)
        except Exception as error:  # whatever a torn file makes of its reader
            raise RecipeError(
                f"'{work}' can't be resumed ({type(error).__name__}): start anew with --overwrite"
            ) from None
        for part, value in identity.items():
            if kept.get(part) != value:
                raise RecipeError(
                    f"can't resume '{work}': the {part} differs from the run that was interrupted; start anew with --overwrite"
                )
        return last
    if not getattr(rank_zero_only, "rank", 0):  # the other processes of a distributed run find the folder there
        if work.exists() and not note.is_file() and any(work.iterdir()):
            raise RecipeError(
                f"'{work}' is in the way: checkpoints would lie there, but it holds something else; move it"
            )
        if last.exists() and not overwrite:
            raise RecipeError(f"'{work}' holds an interrupted run: go on with --resume, or start anew with --overwrite")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        note.write_text(json.dumps(identity))
    return None


def _trainer(fit: Fit, work: Path, validate: bool, progress: bool, devices: int, nodes: int) -> pl.Trainer:
    callbacks: list[Callback] = []
    if 0 < fit.average < 1:
        callbacks.append(averaging(fit.average))
    if fit.optimiser == "ntasgd" and validate:
        callbacks.append(NonMonotone())
    best: dict[str, Any] = {"filename": "newest"}
    if validate:
        several = fit.average > 1
        best = {"monitor": "validation_error", "filename": "best-{epoch}" if several else "best"}
        best["save_top_k"] = int(fit.average) if several else 1
    callbacks.append(ModelCheckpoint(dirpath=work, save_last=True, enable_version_counter=False, **best))
    if validate:
        callbacks.append(EarlyStopping("validation_error", patience=fit.patience))
    if progress:
        callbacks.append(TQDMProgressBar(refresh_rate=5))
    return pl.Trainer(
        max_epochs=fit.epochs,
        accelerator="auto",
        devices=devices,
        num_nodes=nodes,
        gradient_clip_val=fit.clip,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        default_root_dir=work,
    )


def _keep_best(module: Training, trainer: pl.Trainer) -> None:
    """The weights of the best checkpoint, or the mean of those of the best (the last one, where nothing was validated)."""
    saver = trainer.checkpoint_callback
    assert isinstance(saver, ModelCheckpoint)
    paths = [saver.best_model_path, *(path for path in saver.best_k_models if path != saver.best_model_path)]
    first, *others = [torch.load(path, map_location="cpu", weights_only=False)["state_dict"] for path in paths]
    for name, value in first.items():
        if others and value.is_floating_point():
            first[name] = (
                torch.stack([value, *(one[name] for one in others)]).mean(0, dtype=torch.float64).to(value.dtype)
            )
    module.load_state_dict(first)


def _write(
    recipe: Recipe,
    prepared: Prepared,
    module: Training,
    trainer: pl.Trainer,
    out: Path,
    overwrite: bool,
    seconds: float,
) -> Any:
    task = module.task.cpu().eval()
    if prepared.validation is not None:
        task.calibrate(prepared.validation)
    export = task.export()
    parameters = sum(p.numel() for p in task.parameters())
    training = {
        "seconds": round(seconds, 1),
        "epochs": trainer.current_epoch,
        "parameters": parameters,
        **prepared.sizes,
        "history": module.history,
    }
    manifest = {
        "task": recipe.name,
        "codec": prepared.codec,
        "layers": export.layers,
        "config": {"task": dump(recipe.task), "core": dump(recipe.core), "fit": dump(recipe.fit)},
        "data": prepared.digest,
        "training": training,
    }
    files: dict[str, str | bytes] = dict(prepared.files)
    if prepared.scored is not None:
        player = runtime.make(recipe.name, manifest, export.weights, "", prepared.files)
        with suppress(DataError, UnsupportedError):  # what can't be scored is no reason to lose the model
            scores = player.evaluate(prepared.scored)
            if prepared.sample:
                scores = replace(scores, caption=f"{prepared.sample}: {scores.caption}")
            files[modelfile.METRICS] = json.dumps({"part": "validation", **scores.to_json()}, indent=1)
    files["README.md"] = _card(recipe, training, prepared.sizes, files.get(modelfile.METRICS))
    modelfile.write(out, manifest, export.weights, files, overwrite=overwrite)
    return runtime.load(out)


USES = {
    "forecast": (
        "info THIS_FOLDER",
        "predict THIS_FOLDER data.csv --out forecasts.csv",
        "stream THIS_FOLDER --state live.state",
    ),
    "generate": (
        "info THIS_FOLDER",
        "generate THIS_FOLDER --tokens 200",
        "score THIS_FOLDER text.txt",
    ),
    "classify": (
        "info THIS_FOLDER",
        "evaluate THIS_FOLDER labelled.csv",
        "predict THIS_FOLDER data.csv --out labels.csv",
    ),
    "translate": (
        "info THIS_FOLDER",
        "evaluate THIS_FOLDER source.txt --target target.txt",
        "translate THIS_FOLDER < source.txt",
    ),
    "summarise": (
        "info THIS_FOLDER",
        "evaluate THIS_FOLDER data.csv",
        "predict THIS_FOLDER data.csv --out summaries.csv",
    ),
    "tag": (
        "info THIS_FOLDER",
        "evaluate THIS_FOLDER tagged.conll",
        "predict THIS_FOLDER words.conll --out tags.csv",
    ),
}


def _card(recipe: Recipe, training: dict[str, Any], sizes: dict[str, int], metrics: str | bytes | None) -> str:
    lines = [
        f"# A recurra model: {recipe.name}",
        "",
        f"Trained on {', '.join(f'{n} {what}' for what, n in sizes.items())} in {training['seconds']} s; "
        f"{training['parameters']} parameters.",
        "",
        *(f"    recurra {line}" for line in USES[recipe.name]),
    ]
    if metrics:
        lines += ["", "Scores beside the naive floors (validation part) are in metrics.json."]
    return "\n".join(lines) + "\n"


@contextmanager
def _quiet() -> Any:
    """Lightning's advice is for its own users."""
    loggers = [
        logging.getLogger(name)
        for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    ]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*LeafSpec.*", category=FutureWarning)  # lightning 2.6 with torch 2.13
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)

"""A recipe: the four typed parts that decide a training run, from TOML or from Python."""

import re
import tomllib
import warnings
from dataclasses import MISSING, replace
from os import PathLike
from os.path import abspath
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, cast, get_args

from pydantic import Field, model_validator
from pydantic_core import PydanticUndefined

from recurra.config import config, fields, idle
from recurra.data.pairs import Pairs, Summaries
from recurra.data.series import Series
from recurra.data.text import Documents, Sentences, Text
from recurra.errors import RecipeError, nearest
from recurra.tasks import TASKS
from recurra.tasks.task import OWN, Core

T = TypeVar("T")
DATA: dict[str, type] = {
    "forecast": Series,
    "classify": Documents,
    "generate": Text,
    "tag": Sentences,
    "translate": Pairs,
    "summarise": Summaries,
}  # the shape of data that each task reads
EXAMPLES = {
    "forecast": "data.csv",
    "classify": "data.csv",
    "generate": "texts",
    "tag": "train.conll",
    "translate": "train.de",
    "summarise": "data.csv",
}  # of a printed recipe


WHOLE = ("tag", "translate", "summarise")  # tasks that are not taught in chunks


@config
class Fit:
    """How the network is trained, by truncated backpropagation through time. None: the task's own value (DEFAULTS)."""

    epochs: int = Field(default=OWN, ge=1, description="passes over the data (small tables: at least 50 batches each)")
    batch_size: int = Field(default=OWN, ge=1, description="sequences side by side")
    chunk: int = Field(
        default=OWN, ge=1, description="steps between two updates; the state is carried, the gradient is cut"
    )
    window: int | None = Field(
        default=None,
        ge=2,
        description="series: train on random pieces of this many steps, started cold; none: on whole sequences",
    )
    optimiser: Literal["adamw", "sgd", "ntasgd"] = Field(
        default=OWN,
        description="ntasgd: SGD whose weights are averaged once the validation loss has stopped falling (Merity et al., 2018)",
    )
    schedule: str = Field(
        default=OWN,
        description="learning rate: cycle (one warm-up and decay), constant, plateau (a quarter after each epoch without a better "
        "validation loss), or divide 2 after 4 (by 2 at each epoch from the 5th on)",
    )
    learning_rate: float = Field(default=OWN, gt=0, description="highest learning rate")
    weight_decay: float = Field(default=OWN, ge=0, description="decoupled in AdamW")
    clip: float = Field(default=OWN, gt=0, description="largest norm of the gradient")
    average: float = Field(
        default=OWN,
        ge=0,
        description="how weights are averaged: below 1 the decay of a moving average, 0: not, 3 (say): the mean of the 3 best epochs",
    )
    patience: int = Field(default=OWN, ge=1, description="epochs without a better validation loss before stopping")
    seed: int = Field(default=0, ge=0, le=2**40, description="seed of weights, order and dropout")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.schedule is not None:  # not yet filled
            rate(self.schedule, 0)
        if self.average is not None and self.average >= 1 and self.average not in range(2, 1001):
            raise ValueError(f"average is a decay below 1, or a whole number of epochs from 2 on, not {self.average:g}")
        if self.optimiser == "ntasgd" and self.average:
            raise ValueError("ntasgd averages by itself: leave average at 0")
        return self


def rate(schedule: str, epoch: int) -> float:
    """The factor of the learning rate in an epoch (from 0) of a schedule that knows epochs alone. Raises ValueError."""
    if schedule in ("cycle", "constant", "plateau"):
        return 1.0
    found = re.fullmatch(r"divide (\d+(?:\.\d+)?) after (\d+)", schedule)
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"schedule is cycle, constant, plateau or e.g. 'divide 2 after 4', not '{schedule}'")
    return float(found[1]) ** -max(0, epoch + 1 - int(found[2]))


DEFAULTS: dict[str, tuple[Core, Fit]] = {
    "forecast": (
        Core(hidden=64, layers=1, dropout=0.1),
        Fit(
            epochs=10,
            batch_size=32,
            chunk=120,
            optimiser="adamw",
            schedule="cycle",
            learning_rate=4e-3,
            weight_decay=1e-2,
            clip=1.0,
            average=0.99,
            patience=8,
        ),
    ),
    "classify": (
        Core(hidden=128, layers=1, dropout=0.5),
        Fit(
            epochs=6,
            batch_size=16,
            chunk=400,
            optimiser="adamw",
            schedule="cycle",
            learning_rate=3e-3,
            weight_decay=1e-2,
            clip=1.0,
            average=0.99,
            patience=6,
        ),
    ),
    "generate": (
        Core(hidden=256, layers=2, dropout=0.2),
        Fit(
            epochs=10,
            batch_size=32,
            chunk=100,
            optimiser="adamw",
            schedule="cycle",
            learning_rate=4e-3,
            weight_decay=1e-2,
            clip=1.0,
            average=0.0,
            patience=8,
        ),
    ),
    "tag": (
        Core(hidden=150, layers=1, dropout=0.5),
        Fit(
            epochs=12,
            batch_size=16,
            chunk=1,
            optimiser="adamw",
            schedule="cycle",
            learning_rate=4e-3,
            weight_decay=1e-2,
            clip=1.0,
            average=0.99,
            patience=12,
        ),
    ),
    "translate": (
        Core(hidden=256, layers=2, dropout=0.3),
        Fit(
            epochs=15,
            batch_size=64,
            chunk=1,
            optimiser="adamw",
            schedule="cycle",
            learning_rate=3e-3,
            weight_decay=1e-2,
            clip=1.0,
            average=0.99,
            patience=5,
        ),
    ),
    "summarise": (
        Core(hidden=256, layers=1, dropout=0.3),
        Fit(
            epochs=12,
            batch_size=64,
            chunk=1,
            optimiser="adamw",
            schedule="cycle",
            learning_rate=2e-3,
            weight_decay=1e-2,
            clip=1.0,
            average=0.99,
            patience=5,
        ),
    ),
}


def filled(part: T, task: str) -> T:
    """A Core or Fit with the task's own values where it says None."""
    own = next(default for default in DEFAULTS[task] if isinstance(default, type(part)))
    return replace(cast(Any, part), **{f: getattr(own, f) for f in fields(type(part)) if getattr(part, f) is None})


@config
class Recipe:
    """The four parts of a training run."""

    task: Any
    data: Any
    core: Core = Core()
    fit: Fit = Fit()

    @property
    def name(self) -> str:
        """The task's name, e.g. "forecast"."""
        return next(name for name, part in TASKS.items() if isinstance(self.task, part))


def complete(recipe: Recipe) -> Recipe:
    """The recipe with the task's own values where core and fit leave them open. Raises RecipeError where a part is not of its
    class, e.g. task and data swapped.
    """
    task = next((name for name, part in TASKS.items() if isinstance(recipe.task, part)), None)
    if task is None:
        known = ", ".join(part.__name__ for part in TASKS.values())
        raise RecipeError(
            f"the task must be one of {known}, not {type(recipe.task).__name__}: recurra.train(task, data, ...)"
        )
    for name, part in parts(task).items():
        if not isinstance(getattr(recipe, name), part):
            raise RecipeError(f"{name} must be a {part.__name__}, not {type(getattr(recipe, name)).__name__}")
    whole = replace(recipe, core=filled(recipe.core, task), fit=filled(recipe.fit, task))
    if task in WHOLE and whole.fit.chunk != DEFAULTS[task][1].chunk:
        raise RecipeError(f"chunk = {whole.fit.chunk} would do nothing: '{task}' learns from whole texts; leave it out")
    if task != "forecast":
        idle(whole.fit, ("window",), f"'{task}' has no windows")
    if isinstance(whole.data.validation, int | float) and not whole.data.validation:
        needs = [name for name in (whole.fit.optimiser, whole.fit.schedule) if name in ("ntasgd", "plateau")]
        if needs:
            raise RecipeError(
                f"{needs[0]} watches the validation loss, and validation = 0: keep a part, or name a file"
            )
    paths = [part for part in (whole.data.source, whole.data.validation) if isinstance(part, str | PathLike)]
    if len(paths) == 2 and abspath(paths[0]) == abspath(paths[1]):
        said = f"validation = '{paths[1]}' is what is learnt from: its scores say nothing about other data"
        warnings.warn(said, RuntimeWarning, stacklevel=3)
    return whole


def parts(task: str) -> dict[str, type]:
    """The config class of each part of a recipe for `task`."""
    if task not in TASKS:
        raise RecipeError(f"there is no task '{task}': {nearest(task, TASKS)}")
    return {"task": TASKS[task], "data": DATA[task], "core": Core, "fit": Fit}


def from_tables(tables: dict[str, Any]) -> Recipe:
    """A recipe from the tables of a TOML file: [task] (with its `name`), [data], [core], [fit]. Raises RecipeError."""
    tables = {key: dict(value) if isinstance(value, dict) else value for key, value in tables.items()}
    known = ("task", "data", "core", "fit")
    for key, value in tables.items():
        if key not in known:
            raise RecipeError(f"a recipe has no table [{key}]: {nearest(key, known)}")
        if not isinstance(value, dict):
            raise RecipeError(f"{key} must be a table, [{key}], but is {value!r}")
    name = tables.get("task", {}).pop("name", None)
    if name is None:
        raise RecipeError(
            f'the recipe does not say which task: add name = "forecast" to [task] (known: {", ".join(TASKS)})'
        )
    made = {part: build(cls, tables.get(part, {})) for part, cls in parts(str(name)).items()}
    return Recipe(**made)


def default(task: str, part: str, name: str) -> Any:
    """The default of an option: the task's own, where the config leaves it to the task."""
    cls = parts(task)[part]
    value = fields(cls)[name].default
    return getattr(filled(cls(), task), name) if value is None and part in ("core", "fit") else value


def build(cls: type, options: dict[str, Any]) -> Any:
    """A config from named options; "none" stands for nothing, which TOML can't write. Raises RecipeError."""
    needed = [name for name, field in fields(cls).items() if field.is_required() and name not in options]
    unknown = [name for name in options if name not in fields(cls)]
    if unknown:
        raise RecipeError(f"{cls.__name__} has no option '{unknown[0]}': {nearest(unknown[0], fields(cls))}")
    if needed:
        raise RecipeError(f"{cls.__name__} needs the option '{needed[0]}'")
    absent = [
        name
        for name, value in options.items()
        if value == "none" and type(None) in get_args(fields(cls)[name].annotation)
    ]
    return cls(**options | dict.fromkeys(absent))


def from_toml(path: str | Path) -> Recipe:
    """Read a recipe file. Relative paths of data are taken from the recipe's own folder. Raises RecipeError."""
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = (
            nearest(path.name, [p.name for p in path.parent.glob("*.toml")])
            if path.parent.is_dir()
            else "no such folder"
        )
        raise RecipeError(f"no recipe file '{path}': {near}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"'{path}' is not UTF-8 text: save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"'{path}' is not valid TOML: {error}") from None
    data = tables.get("data")
    task = tables.get("task", {}).get("name") if isinstance(tables.get("task"), dict) else None
    sides = ("target", "validation_target") if task in ("translate", "summarise") else ()
    for name in ("source", "validation", *sides):
        value = data.get(name) if isinstance(data, dict) else None
        if isinstance(value, str) and value != "none" and not Path(value).is_absolute():
            tables["data"][name] = str(path.parent / value)
    return from_tables(tables)


def template(task: str) -> str:
    """A recipe for `task` with every option, its default and its meaning, as commented TOML."""
    lines = ["# A recipe for `recurra train THIS_FILE --out MODEL`. Commented lines show the defaults."]
    for part, cls in parts(task).items():
        lines += ["", f"[{part}]  # {(cls.__doc__ or '').splitlines()[0]}"]
        if part == "task":
            lines.append(f'name = "{task}"')
        for name, field in fields(cls).items():
            value = default(task, part, name)
            required = value is PydanticUndefined or value is MISSING
            example = {"source": f'"{EXAMPLES[task]}"', "horizon": "24"}.get(name, '""')
            text = example if required else _toml(value)
            lines.append(f"{'' if required else '# '}{name} = {text}  # {field.description}")
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(v) for v in cast(tuple[object, ...], value)) + "]"
    return '"none"' if value is None else str(value)

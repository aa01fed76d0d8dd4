"""A recipe: the four typed parts that decide a training run, from TOML or from Python."""

import tomllib
from dataclasses import MISSING
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import Field
from pydantic_core import PydanticUndefined

from recurra.config import config, fields
from recurra.data.series import Series
from recurra.errors import RecipeError, nearest
from recurra.tasks import TASKS
from recurra.tasks.task import Core

DATA = {"forecast": Series}  # the shape of data that each task reads


@config
class Fit:
    """How the network is trained: AdamW, one cycle of the learning rate, truncated backpropagation through time."""

    epochs: int = Field(default=10, ge=1, description="passes over the data (small tables: at least 50 batches each)")
    batch_size: int = Field(default=32, ge=1, description="sequences side by side")
    chunk: int = Field(
        default=120, ge=1, description="steps between two updates; the state is carried, the gradient is cut"
    )
    window: int | None = Field(
        default=None,
        ge=2,
        description="train on random pieces of this many steps, started cold; none: on whole sequences",
    )
    learning_rate: float = Field(default=4e-3, gt=0, description="highest learning rate of the cycle")
    weight_decay: float = Field(default=1e-2, ge=0, description="AdamW's decoupled weight decay")
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    average: float = Field(
        default=0.99, ge=0, lt=1, description="decay of the moving average of the weights that is kept; 0: none"
    )
    patience: int = Field(default=8, ge=1, description="epochs without a better validation loss before stopping")
    seed: int = Field(default=0, ge=0, description="seed of weights, order and dropout")
    devices: int = Field(default=1, ge=1, description="devices a node")
    nodes: int = Field(default=1, ge=1, description="machines")


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


def checked(recipe: Recipe) -> None:
    """Raises RecipeError where a part is not of its class, e.g. task and data swapped."""
    task = next((name for name, part in TASKS.items() if isinstance(recipe.task, part)), None)
    if task is None:
        known = ", ".join(part.__name__ for part in TASKS.values())
        raise RecipeError(
            f"the task must be one of {known}, not {type(recipe.task).__name__}: recurra.train(task, data, ...)"
        )
    for name, part in parts(task).items():
        if not isinstance(getattr(recipe, name), part):
            raise RecipeError(f"{name} must be a {part.__name__}, not {type(getattr(recipe, name)).__name__}")


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
    """Read a recipe file. A relative data path is taken from the recipe's own folder. Raises RecipeError."""
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
    source = data.get("source") if isinstance(data, dict) else None
    if isinstance(source, str) and not Path(source).is_absolute():
        tables["data"]["source"] = str(path.parent / source)
    return from_tables(tables)


def template(task: str) -> str:
    """A recipe for `task` with every option, its default and its meaning, as commented TOML."""
    lines = ["# A recipe for `recurra train THIS_FILE --out MODEL`. Commented lines show the defaults."]
    for part, cls in parts(task).items():
        lines += ["", f"[{part}]  # {(cls.__doc__ or '').splitlines()[0]}"]
        if part == "task":
            lines.append(f'name = "{task}"')
        for name, field in fields(cls).items():
            value = field.default
            required = value is PydanticUndefined or value is MISSING
            example = {"source": '"data.csv"', "horizon": "24"}.get(name, '""')
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

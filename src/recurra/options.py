"""The command line's training options, made from the config classes: name, default and help are theirs, so they can't drift."""

import inspect
from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer

from recurra.config import fields
from recurra.errors import RecipeError
from recurra.training.recipe import default as default_of
from recurra.training.recipe import parts


def _plain(annotation: Any) -> Any:
    """The type that the command line parses: lists as comma-separated text, literals as text."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        inner = [arg for arg in get_args(annotation) if arg is not type(None)]
        return _plain(inner[0]) | None
    if origin in (tuple, Literal) or annotation is Any:
        return str
    return annotation


def _shown(value: Any) -> str:
    """A default, as the help shows it."""
    if value is None:
        return "automatic"
    if isinstance(value, tuple):
        return ",".join(str(v) for v in value) or "none"
    return str(value)


def options(task: str) -> Iterator[tuple[str, str, inspect.Parameter]]:
    """(part, field, parameter) of every option of every part of a recipe."""
    for part, cls in parts(task).items():
        for name, field in fields(cls).items():
            if name == "source":
                continue
            required = field.is_required()
            kind = _plain(field.annotation)
            note = field.description or ""
            choices = [arg for arg in get_args(field.annotation) if isinstance(arg, str)]
            if get_origin(field.annotation) is Literal:
                note += f": {', '.join(choices)}"
            if required:
                default = ...
            else:
                default = field.default if kind is bool else None
                note += f" (default: {_shown(default_of(task, part, name))})"
                kind = kind if kind is bool or type(None) in get_args(kind) else kind | None
            panel = {"task": f"Task: {cls.__name__}", "data": "Data", "core": "Core", "fit": "Fit"}[part]
            flag = name.replace("_", "-")
            words = f"--{flag}/--no-{flag}" if kind is bool and field.default else f"--{flag}"
            option = typer.Option(default, words, help=note, rich_help_panel=panel, show_default=False)
            yield part, name, inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind)


def parsed(cls: type, name: str, value: Any) -> Any:
    """A command-line value as the config takes it: "a,b" becomes a tuple, "none" nothing."""
    annotation = fields(cls)[name].annotation
    choices = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    if type(None) in choices and value == "none":
        return None
    for choice in choices:
        if get_origin(choice) is tuple:
            items = [item.strip() for item in value.split(",") if item.strip()]
            inner = get_args(choice)[0]
            try:
                return tuple(inner(item) for item in items)
            except ValueError:
                raise RecipeError(
                    f"--{name.replace('_', '-')} {value}: must be {inner.__name__} values with commas between"
                ) from None
    return value

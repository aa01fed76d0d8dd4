"""Configs: frozen, typed, with the nearest right name where a key is wrong.

`@config` turns a class of annotated fields into a frozen pydantic dataclass; a field's description is its help text on
the command line and its comment in a recipe.
"""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from recurra.errors import RecipeError, nearest

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def config(cls: type[T]) -> type[T]:
    """Make `cls` a config: frozen, positional or by keyword, unknown and wrong values refused with a RecipeError of one line."""
    made: Any = dataclass(
        frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)
    )(cls)
    init: Callable[..., None] = made.__init__

    @wraps(init)
    def checked(self: object, *args: Any, **options: Any) -> None:
        # None for a field whose default is None: the default, also where the field's type has no None (tasks/task.py, OWN)
        given = {
            k: v
            for k, v in options.items()
            if v is not None or k not in fields(made) or fields(made)[k].default is not None
        }
        try:
            init(self, *args, **given)
        except ValidationError as error:
            raise RecipeError(explain(error, made)) from None

    made.__init__ = checked
    return made


def fields(cls: type) -> dict[str, FieldInfo]:
    """The fields of a config, by name."""
    return cls.__pydantic_fields__  # type: ignore[attr-defined]


def idle(part: object, names: Iterable[str], why: str) -> None:
    """Raises RecipeError where one of the options `names` was set (differs from its default) though it would do nothing."""
    for name in names:
        value = getattr(part, name)
        if value != fields(type(part))[name].get_default():
            raise RecipeError(f"{type(part).__name__}.{name} = {value!r} would do nothing: {why}; leave it out")


def explain(error: ValidationError, cls: type) -> str:
    """The first complaint of pydantic in one line: which option of which part, the rule, the value."""
    first = error.errors()[0]
    part = cls.__name__
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{part} has no option '{name}': {nearest(name, fields(cls))}"
    if first["type"] in ("missing", "missing_argument"):
        return f"{part} needs the option '{name}'"
    text = first["msg"].removeprefix("Value error, ")
    return f"{part}.{name} = {first.get('input')!r}: {text[0].lower()}{text[1:]}" if name else f"{part}: {text}"


def dump(value: object) -> dict[str, Any]:
    """A config as JSON-able data."""
    return TypeAdapter(type(value)).dump_python(value, mode="json")

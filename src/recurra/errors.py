"""Every error that recurra raises on purpose.

    RecurraError                    catch this to catch them all
    ├── DataError(ValueError)       a table, column, time stamp or value is not what the model needs
    ├── RecipeError(ValueError)     an option is unknown, of the wrong type or contradicts another
    ├── ModelFileError(ValueError)  a model folder is missing, truncated, edited, too new, or of another task
    ├── StateError(ValueError)      a state belongs to another model, or an observation comes at the wrong time
    └── UnsupportedError(NotImplementedError)   a kernel, layer or task can't do what was asked, and says what can

A message is one line: the rule, the value, and the way out. The command line prints it and exits with 2.
"""

import difflib
from collections.abc import Iterable


class RecurraError(Exception):
    """Base of all errors raised on purpose."""


class DataError(RecurraError, ValueError):
    """A table, column, time stamp or value is not what the model needs."""


class RecipeError(RecurraError, ValueError):
    """An option of a recipe is unknown, of the wrong type, or contradicts another."""


class ModelFileError(RecurraError, ValueError):
    """A model folder is missing, truncated, edited, too new, or of another task."""


class StateError(RecurraError, ValueError):
    """A state belongs to another model, or an observation comes at the wrong time."""


class UnsupportedError(RecurraError, NotImplementedError):
    """A kernel, layer or task can't do what was asked."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown `name`: its nearest known name, or the list of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"known: {shown or '(none)'}"

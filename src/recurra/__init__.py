"""recurra: the home of recurrent networks.

Four typed parts decide a training run, and importing this package imports none of torch:

    model = recurra.train(recurra.Forecast(horizon=24), recurra.Series("load.csv"), out="model")
    model = recurra.load("model")
    model.predict("load.csv")                      # a forecast for every series
    answer, state = model.step(model.start(), y)   # one observation in, one forecast out
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recurra.data.pairs import Pairs, Summaries
    from recurra.data.series import Series
    from recurra.data.text import Documents, Sentences, Text
    from recurra.errors import RecurraError
    from recurra.runtime.model import load
    from recurra.runtime.stream import State
    from recurra.search.sampling import Sampling
    from recurra.search.settings import Search
    from recurra.tasks.classify import Classify
    from recurra.tasks.forecast import Forecast
    from recurra.tasks.generate import Generate
    from recurra.tasks.summarise import Summarise
    from recurra.tasks.tag import Tag
    from recurra.tasks.task import Core
    from recurra.tasks.translate import Translate
    from recurra.training.fit import train
    from recurra.training.recipe import Fit

__version__ = "0.1.0"
__all__ = [
    "Classify",
    "Core",
    "Documents",
    "Fit",
    "Forecast",
    "Generate",
    "Pairs",
    "RecurraError",
    "Sampling",
    "Search",
    "Sentences",
    "Series",
    "State",
    "Summaries",
    "Summarise",
    "Tag",
    "Text",
    "Translate",
    "__version__",
    "load",
    "train",
]

_HOMES = {
    "Classify": "tasks.classify",
    "Core": "tasks.task",
    "Documents": "data.text",
    "Fit": "training.recipe",
    "Forecast": "tasks.forecast",
    "Generate": "tasks.generate",
    "Pairs": "data.pairs",
    "RecurraError": "errors",
    "Sampling": "search.sampling",
    "Search": "search.settings",
    "Sentences": "data.text",
    "Series": "data.series",
    "State": "runtime.stream",
    "Summaries": "data.pairs",
    "Summarise": "tasks.summarise",
    "Tag": "tasks.tag",
    "Text": "data.text",
    "Translate": "tasks.translate",
    "load": "runtime.model",
    "train": "training.fit",
}


def __getattr__(name: str) -> Any:
    """The public names, each imported from its home when first used."""
    if name in _HOMES:
        return getattr(import_module(f"recurra.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'recurra' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__

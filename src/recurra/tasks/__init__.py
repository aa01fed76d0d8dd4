"""One job a file; none knows another, a trainer or a reader."""

from recurra.tasks.classify import Classifier, Classify
from recurra.tasks.forecast import Forecast, Forecaster
from recurra.tasks.generate import Generate, LanguageModel
from recurra.tasks.tag import Tag, Tagger

TASKS = {"forecast": Forecast, "classify": Classify, "generate": Generate, "tag": Tag}
MODELS = {Forecast: Forecaster, Classify: Classifier, Generate: LanguageModel, Tag: Tagger}

__all__ = [
    "MODELS",
    "TASKS",
    "Classifier",
    "Classify",
    "Forecast",
    "Forecaster",
    "Generate",
    "LanguageModel",
    "Tag",
    "Tagger",
]

"""One job a file; none knows another, a trainer or a reader."""

from recurra.tasks.classify import Classifier, Classify
from recurra.tasks.forecast import Forecast, Forecaster
from recurra.tasks.generate import Generate, LanguageModel
from recurra.tasks.summarise import Summarise, Summariser
from recurra.tasks.tag import Tag, Tagger
from recurra.tasks.translate import Translate, Translator

TASKS = {
    "forecast": Forecast,
    "classify": Classify,
    "generate": Generate,
    "tag": Tag,
    "translate": Translate,
    "summarise": Summarise,
}
MODELS = {
    Forecast: Forecaster,
    Classify: Classifier,
    Generate: LanguageModel,
    Tag: Tagger,
    Translate: Translator,
    Summarise: Summariser,
}

__all__ = [
    "MODELS",
    "TASKS",
    "Classifier",
    "Classify",
    "Forecast",
    "Forecaster",
    "Generate",
    "LanguageModel",
    "Summarise",
    "Summariser",
    "Tag",
    "Tagger",
    "Translate",
    "Translator",
]

"""One job a file; none knows another, a trainer or a reader."""

from recurra.tasks.classify import Classifier, Classify
from recurra.tasks.forecast import Forecast, Forecaster
from recurra.tasks.generate import Generate, LanguageModel

TASKS = {"forecast": Forecast, "classify": Classify, "generate": Generate}
MODELS = {Forecast: Forecaster, Classify: Classifier, Generate: LanguageModel}

__all__ = ["MODELS", "TASKS", "Classifier", "Classify", "Forecast", "Forecaster", "Generate", "LanguageModel"]

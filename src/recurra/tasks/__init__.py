"""One job a file; none knows another, a trainer or a reader."""

from recurra.tasks.forecast import Forecast, Forecaster
from recurra.tasks.generate import Generate, LanguageModel

TASKS = {"forecast": Forecast, "generate": Generate}
MODELS = {Forecast: Forecaster, Generate: LanguageModel}

__all__ = ["MODELS", "TASKS", "Forecast", "Forecaster", "Generate", "LanguageModel"]

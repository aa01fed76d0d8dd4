"""One job a file; none knows another, a trainer or a reader."""

from recurra.tasks.forecast import Forecast, Forecaster

TASKS = {"forecast": Forecast}
MODELS = {Forecast: Forecaster}

__all__ = ["MODELS", "TASKS", "Forecast", "Forecaster"]

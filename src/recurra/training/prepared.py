"""What training needs of a recipe, whatever the task."""

from dataclasses import dataclass, field
from typing import Any

from recurra.data.batch import Batches
from recurra.tasks.task import Task

MIN_STEPS = 50  # batches an epoch at least: small data are gone through again


@dataclass(frozen=True)
class Prepared:
    """A task and its batches. codec: as saved in the model file; digest: of the training data; sizes: what was read; scored:
    what the trained model is given to evaluate, for the scores in its file, or None; sample: how it was drawn, where it is not the
    whole part; files: further files of the model.
    """

    task: Task
    train: Batches
    validation: Batches | None
    codec: dict[str, Any]
    digest: str
    sizes: dict[str, int]
    scored: Any
    sample: str = ""
    files: dict[str, str] = field(default_factory=dict)

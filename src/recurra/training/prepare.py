"""From a recipe to what training needs: for each task, read the data, fit the codec, build the model and the batches."""

from collections.abc import Callable

import numpy as np
import torch

from recurra.codec import series as series_codec
from recurra.data.series import Chunks
from recurra.errors import DataError
from recurra.tasks import Forecaster
from recurra.training import prepare_pairs, prepare_tag, prepare_text
from recurra.training.prepare_classify import classify
from recurra.training.prepared import MIN_STEPS, Prepared
from recurra.training.recipe import Recipe

SCORED = 1000  # series at most that are scored after training


def forecast(recipe: Recipe) -> Prepared:
    """A forecaster of series. Raises DataError, RecipeError."""
    config, data, fit = recipe.task, recipe.data, recipe.fit
    panel = data.read()
    held_out = config.horizon if data.validation is None else data.validation
    observed = panel.observed_until
    learnt = panel.cut(np.where(observed > held_out + 1, observed - held_out, observed)) if held_out else panel
    codec = series_codec.fit(
        learnt,
        horizon=config.horizon,
        output=config.output,
        levels=config.quantiles,
        scaling=config.scaling,
        seasons=config.seasons,
        calendar=config.calendar,
    )
    del learnt
    skip = config.skip if config.skip is not None else max(4, codec.scaling.level)
    if fit.window is not None and fit.window <= skip:
        raise DataError(f"window = {fit.window} leaves nothing to learn after skip = {skip}: use a longer window")
    train = Chunks(
        panel,
        codec,
        part="train",
        held_out=held_out,
        batch_size=fit.batch_size,
        chunk=fit.chunk,
        window=fit.window,
        skip=skip,
        min_steps=MIN_STEPS,
        seed=fit.seed,
    )
    validation = None
    if held_out:
        validation = Chunks(
            panel,
            codec,
            part="validation",
            held_out=held_out,
            batch_size=4 * fit.batch_size,
            chunk=fit.chunk,
            window=fit.window,
            skip=skip,
        )
        if not len(validation.series):
            longest = int(observed.max())
            raise DataError(
                f"no series is long enough to keep {held_out} steps for validation: the longest has {longest} observed rows; "
                "set validation = 0 to train without"
            )
    torch.manual_seed(fit.seed)
    scored = np.flatnonzero(observed > held_out + 1)[:: max(1, len(panel) // SCORED)][:SCORED]
    return Prepared(
        task=Forecaster(config, recipe.core, codec),
        train=train,
        validation=validation,
        codec=codec.model_dump(mode="json"),
        digest=panel.digest(),
        sizes={"series": len(panel), "rows": int(panel.offsets[-1])},
        scored=panel.take(scored) if held_out and len(scored) else None,
    )


PREPARE: dict[str, Callable[[Recipe], Prepared]] = {
    "forecast": forecast,
    "classify": classify,
    "generate": prepare_text.generate,
    "tag": prepare_tag.tag,
    "translate": prepare_pairs.translate,
    "summarise": prepare_pairs.summarise,
}

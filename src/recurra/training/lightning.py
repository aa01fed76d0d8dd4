"""The one LightningModule: the only place that divides a loss, logs and steps."""

import math
import time
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from recurra.data.batch import Batch, Batches
from recurra.errors import RecipeError
from recurra.tasks.task import CoreState, Task, detach
from recurra.training.recipe import Fit, rate

LOOKED = 50  # steps after which the loss is looked at
NON_MONOTONE = 5  # epochs that the validation loss is compared with, before weights are averaged (Merity et al., 2018)


class Training(pl.LightningModule):
    """Trains any task: carries its state from batch to batch and cuts the gradient between them."""

    def __init__(self, task: Task, fit: Fit, train: Batches, validation: Batches | None) -> None:
        super().__init__()
        self.task, self.fit, self.train_batches, self.validation_batches = task, fit, train, validation
        self._state: CoreState | None = None
        self._totals = torch.zeros(0, dtype=torch.float64)
        self._scale = 1.0
        self.history: list[dict[str, Any]] = []
        """A row an epoch: epoch (from 1), the mean loss in training, that of validation and its error (None where there is none, or it
        is not finite), the highest learning rate of the last step, the seconds that training and validation took, and what begins with the
        next epoch, where something does."""

    def _output(self, batch: Batch) -> Any:
        output, state = self.task(batch, None if batch.fresh else self._state)
        self._state = detach(state)
        return output

    def training_step(self, batch: Batch) -> Tensor:
        # dropout depends on the step alone, so a resumed run draws what an uninterrupted one draws
        torch.manual_seed(self.fit.seed * 1_000_003 + self.global_step)
        total, count = self.task.loss(self._output(batch), batch)
        loss = total / count.clamp(min=1.0)
        self.log("loss", loss, prog_bar=True, batch_size=1)
        self._learnt += torch.stack([total.detach(), count.detach()])
        if self.global_step % LOOKED == 0:
            self._check(loss)
        return loss

    def _check(self, loss: Tensor) -> None:
        if not bool(torch.isfinite(loss.detach())):
            raise RecipeError(
                f"the loss is not a number any more, in epoch {self.current_epoch + 1}: lower learning_rate = {self.fit.learning_rate:g}"
            )

    def validation_step(self, batch: Batch) -> None:
        output = self._output(batch)
        found = [*self.task.loss(output, batch), *self.task.error(output, batch)]
        self._totals += torch.cat([part.detach().double().cpu().flatten() for part in found])

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self._scale = batch.scale

    def on_train_epoch_start(self) -> None:
        self._learnt, self._started = torch.zeros(2, device=self.device, dtype=torch.float64), time.monotonic()
        self.task.begin(self.current_epoch)
        if self.fit.schedule.startswith("divide"):
            for group in self._optimiser().param_groups:
                group["lr"] = group["factor"] * self.fit.learning_rate * rate(self.fit.schedule, self.current_epoch)

    def on_validation_epoch_start(self) -> None:
        self._check(self._learnt[0])
        self._kept, self._state = self._state, None
        self._totals = torch.zeros(3 + self.task.errors, dtype=torch.float64)

    def on_validation_epoch_end(self) -> None:
        self._state = self._kept
        totals = self.trainer.strategy.reduce(self._totals.to(self.device), reduce_op="sum").tolist()
        loss, error = totals[0] / max(totals[1], 1.0), self.task.overall(totals[2:-1], totals[-1])
        self.log("validation_loss", loss, prog_bar=True)
        self.log("validation_error", error)
        # both now, since the checkpoint of the epoch is saved after validation
        self._enter(loss, error)
        if self.fit.schedule == "plateau":
            cast(ReduceLROnPlateau, self.lr_schedulers()).step(loss)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if not isinstance(scheduler, ReduceLROnPlateau):  # which lightning would step too late
            scheduler.step()

    def on_train_epoch_end(self) -> None:
        if self.validation_batches is None:
            self._check(self._learnt[0])
            self._enter(None, None)

    def _enter(self, loss: float | None, error: float | None) -> None:
        """The epoch's row in the history; the task hears of it."""
        total, count = self.trainer.strategy.reduce(self._learnt, reduce_op="sum").tolist()
        row = {
            "epoch": self.current_epoch + 1,
            "loss": total / max(count, 1.0),
            "validation_loss": loss,
            "validation_error": error,
            "learning_rate": self._rate,
            "seconds": round(time.monotonic() - self._started, 2),
        }
        kept: dict[str, Any] = {k: v if v is None or math.isfinite(v) else None for k, v in row.items()}
        begins = self.task.heard(row["loss"] if loss is None else loss)
        self.history.append(kept if begins is None else kept | {"begins": begins})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = list(checkpoint.get("history", []))

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device)

    def train_dataloader(self) -> DataLoader[Batch]:
        self.train_batches.epoch = self.current_epoch
        return DataLoader(self.train_batches, batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        return [] if self.validation_batches is None else DataLoader(self.validation_batches, batch_size=None)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        groups = optimizer.param_groups
        planned = [group["lr"] for group in groups]
        self._rate = max(planned)
        for group in groups:
            group["lr"] *= self._scale
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        for group, rate_planned in zip(groups, planned, strict=True):  # what the schedule and a checkpoint must hold
            group["lr"] = rate_planned

    def _optimiser(self) -> torch.optim.Optimizer:
        return self.trainer.optimizers[0]

    def configure_optimizers(self) -> Any:
        fit, groups = self.fit, []
        for parameters, factor in self.task.groups():
            wanted = [p for p in parameters if p.requires_grad]
            for decay, some in (
                (fit.weight_decay, [p for p in wanted if p.ndim > 1]),
                (0.0, [p for p in wanted if p.ndim <= 1]),
            ):
                if some:
                    highest = factor * fit.learning_rate
                    groups.append({"params": some, "weight_decay": decay, "lr": highest, "factor": factor})
        if fit.optimiser == "adamw":
            optimiser: torch.optim.Optimizer = torch.optim.AdamW(groups, lr=fit.learning_rate, betas=(0.9, 0.99))
        else:
            optimiser = torch.optim.SGD(groups, lr=fit.learning_rate)
        if fit.schedule == "cycle":
            steps = sum(self.train_batches.steps(epoch) for epoch in range(fit.epochs))
            highest = [group["lr"] for group in groups]
            cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, highest, total_steps=steps + 1, pct_start=0.1)
            return {"optimizer": optimiser, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}
        if fit.schedule == "plateau" and self.validation_batches is not None:
            plateau = ReduceLROnPlateau(optimiser, factor=0.25, patience=0)
            return {
                "optimizer": optimiser,
                "lr_scheduler": {"scheduler": plateau, "interval": "epoch", "monitor": "validation_loss"},
            }
        return optimiser


def averaging(decay: float) -> WeightAveraging:
    """A moving average of the weights, with a shorter memory in the first steps. Validation and saving use the average."""

    def average(kept: Tensor, new: Tensor, seen: Tensor | int) -> Tensor:
        if not kept.is_floating_point():  # a buffer of truth values or counts
            return new
        rate = min(decay, (1.0 + float(seen)) / (10.0 + float(seen)))
        return kept + (1.0 - rate) * (new - kept)

    return WeightAveraging(avg_fn=average)


class NonMonotone(WeightAveraging):
    """The mean of the weights of every step since the validation loss was last seen to stop falling: since the first epoch
    whose loss was above the least of all but the last five. Until then the weights themselves.
    """

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []
        self.averaging = False

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return self.averaging and step_idx is not None

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.averaging:
            self._follow(pl_module)
        super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loss = float(trainer.callback_metrics["validation_loss"])
        before = self.losses[:-NON_MONOTONE]
        if not self.averaging and before and loss > min(before):
            self.averaging = True
        self.losses.append(loss)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.averaging:
            self._follow(pl_module)
        super().on_train_end(trainer, pl_module)

    def _follow(self, pl_module: pl.LightningModule) -> None:
        """Makes the average the present weights."""
        assert self._average_model is not None
        self._average_model.module.load_state_dict(pl_module.state_dict())
        self._average_model.n_averaged.fill_(1)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "losses": self.losses, "averaging": self.averaging}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.losses, self.averaging = list(state_dict["losses"]), state_dict["averaging"]

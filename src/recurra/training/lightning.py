"""The one LightningModule: the only place that divides a loss, logs and steps."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.utils.data import DataLoader

from recurra.data.batch import Batch
from recurra.data.series import Chunks
from recurra.tasks.task import CoreState, Task, detach
from recurra.training.recipe import Fit


class Training(pl.LightningModule):
    """Trains any task: carries its state from batch to batch and cuts the gradient between them."""

    def __init__(self, task: Task, fit: Fit, train: Chunks, validation: Chunks | None) -> None:
        super().__init__()
        self.task, self.fit, self.train_chunks, self.validation_chunks = task, fit, train, validation
        self._state: CoreState | None = None
        self._sum, self._count = 0.0, 0.0

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        output, state = self.task(batch, None if batch.fresh else self._state)
        self._state = detach(state)
        return self.task.loss(output, batch)

    def training_step(self, batch: Batch) -> Tensor:
        # dropout depends on the step alone, so a resumed run draws what an uninterrupted one draws
        torch.manual_seed(self.fit.seed * 1_000_003 + self.global_step)
        total, count = self._loss(batch)
        loss = total / count.clamp(min=1.0)
        self.log("loss", loss, prog_bar=True, batch_size=1)
        return loss

    def validation_step(self, batch: Batch) -> None:
        total, count = self._loss(batch)
        self._sum += float(total)
        self._count += float(count)

    def on_validation_epoch_start(self) -> None:
        self._kept, self._state = self._state, None
        self._sum, self._count = 0.0, 0.0

    def on_validation_epoch_end(self) -> None:
        self._state = self._kept
        totals = torch.tensor([self._sum, self._count], dtype=torch.float64, device=self.device)
        total, count = self.trainer.strategy.reduce(totals, reduce_op="sum").tolist()
        self.log("validation_loss", float(total / max(count, 1.0)), prog_bar=True)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device)

    def train_dataloader(self) -> DataLoader[Batch]:
        self.train_chunks.epoch = self.current_epoch
        return DataLoader(self.train_chunks, batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        return [] if self.validation_chunks is None else DataLoader(self.validation_chunks, batch_size=None)

    def configure_optimizers(self) -> Any:
        fit = self.fit
        decayed = [p for p in self.task.parameters() if p.requires_grad and p.ndim > 1]
        free = [p for p in self.task.parameters() if p.requires_grad and p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": fit.weight_decay}, {"params": free, "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(groups, lr=fit.learning_rate, betas=(0.9, 0.99))
        steps = sum(self.train_chunks.steps(epoch) for epoch in range(fit.epochs))
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, fit.learning_rate, total_steps=steps + 1, pct_start=0.1)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


def averaging(decay: float) -> WeightAveraging:
    """A moving average of the weights, with a shorter memory in the first steps. Validation and saving use the average."""

    def average(kept: Tensor, new: Tensor, seen: Tensor | int) -> Tensor:
        rate = min(decay, (1.0 + float(seen)) / (10.0 + float(seen)))
        return kept + (1.0 - rate) * (new - kept)

    return WeightAveraging(avg_fn=average)

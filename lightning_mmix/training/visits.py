"""Visits: functions that are shown the batches of a Trainer's own evaluation."""

import sys
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from typing_extensions import override

from lightning_mmix.batches.roles import first_loader, num_unrepeated
from lightning_mmix.core.trees import mapped

Stage = Literal["validate", "test"]
Visit = Callable[[Any, int, int], None]


class _Visitor(Callback):
    """Shows every batch of an evaluation to a function, as the network got it."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit

    def _on_batch(self, trainer: Trainer, loaders: Any, batch: Any, batch_idx: int) -> None:
        count = num_unrepeated(first_loader(loaders), batch_idx, sys.maxsize)
        # out of inference mode, for attacks and the cut test need gradients
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            trainer.precision_plugin.forward_context(),
        ):
            self._visit(mapped(batch, torch.clone), batch_idx, count)

    @override
    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if dataloader_idx == 0:
            self._on_batch(trainer, trainer.val_dataloaders, batch, batch_idx)

    @override
    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if dataloader_idx == 0:
            self._on_batch(trainer, trainer.test_dataloaders, batch, batch_idx)


def visited(
    trainer: Trainer,
    model: LightningModule,
    data: LightningDataModule | None,
    stage: Stage,
    visit: Visit,
) -> dict[str, float]:
    """Run a Trainer's evaluation, and show each batch of the first loader to a function.

    Args:
        trainer: Any Trainer.
        model: Its module.
        data: The module's data, if it does not bring them itself.
        stage: Which evaluation.
        visit: Takes the batch as the network got it, its position, and how many of its first
            samples are no repetition by a distributed sampler, or more than it has. It runs without
            gradients, but out of inference mode.

    Returns:
        What the module logged, of all loaders.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    visitor = _Visitor(visit)
    callbacks.append(visitor)
    try:
        logged = getattr(trainer, stage)(model, datamodule=data, verbose=False)
    finally:
        callbacks.remove(visitor)
    return {name: float(value) for loader in logged for name, value in loader.items()}


def stage_of(model: LightningModule, data: LightningDataModule | None) -> Stage:
    """What a module is measured in: testing, or for want of it validation.

    Raises:
        ValueError: If it has neither.
    """
    if has(model, data, "test"):
        return "test"
    if has(model, data, "validation"):
        return "validate"
    raise ValueError(
        "expected a module with a test_step and test data, or a validation_step and validation "
        "data, to measure it on"
    )


def has(model: LightningModule, data: LightningDataModule | None, stage: str) -> bool:
    """Whether there are a step and a loader for it."""
    loader = f"{'val' if stage == 'validation' else stage}_dataloader"
    owner = model if data is None else data  # a Trainer that is given data asks them alone
    return is_overridden(loader, owner) and is_overridden(f"{stage}_step", model)


def of_all_ranks(own: list[Tensor]) -> list[Tensor]:
    """The tensors of all processes, which have to call this together."""
    if not (dist.is_available() and dist.is_initialized()):
        return own
    parts: list[list[Tensor]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, own)
    return [tensor for part in parts for tensor in part]

"""Visits: functions that are shown the batches of a Trainer's own evaluation."""

import sys
from collections.abc import Callable
from itertools import islice
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from typing_extensions import override

from lightning_mmix.batches.loaders import first_loader, num_unrepeated
from lightning_mmix.core.trees import mapped
from lightning_mmix.cuts.snapshot import same_randomness
from lightning_mmix.evaluation.predictions import evaluating

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


def total_of(trainer: Trainer) -> Callable[[Tensor], Tensor]:
    """What gives the sum of a tensor over a Trainer's processes, which have to call it together."""

    def total(values: Tensor) -> Tensor:
        if trainer.world_size == 1:  # whose device may know no float64
            return values
        strategy = trainer.strategy
        summed = strategy.reduce(values.to(strategy.root_device), reduce_op="sum")
        return torch.as_tensor(summed).to(values.device)

    return total


def show(trainer: Trainer, module: LightningModule, visit: Callable[[Any, int], None]) -> None:
    """Show each batch of a fit's first validation loader to a function, outside of a validation.

    Nothing is logged, no callback and no step is called, and no random number is used up.

    Args:
        trainer: Which fits.
        module: Its module, which is in evaluation mode meanwhile.
        visit: Takes the batch as the network gets it, and its position. It runs without gradients.
    """
    trainer.fit_loop.epoch_loop.val_loop.setup_data()
    loader, most = first_loader(trainer.val_dataloaders), trainer.num_val_batches
    limit = min(most[0] if isinstance(most, list) else most, sys.maxsize)
    stage = trainer.state.stage
    with torch.no_grad(), same_randomness(module), evaluating(module):
        trainer.validating = True  # hooks of a module may augment where it says training
        try:
            for batch_idx, each in enumerate(islice(loader, int(limit))):
                batch = trainer.precision_plugin.convert_input(each)
                batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
                visit(trainer.strategy.batch_to_device(batch, dataloader_idx=0), batch_idx)
        finally:
            trainer.state.stage = stage

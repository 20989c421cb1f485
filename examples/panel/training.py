"""One run of the panel: a network trained one way, and what it is worth as it was trained."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from math import nan
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, Sampler

from lightning_mmix import ManifoldMixup
from lightning_mmix.evaluation import Units, evaluate
from lightning_mmix.metrics import (
    brier_sum,
    calibration_bins,
    calibration_error,
    nll_sum,
    temperature_scaling,
)
from panel.conditions import conditions
from panel.tasks import Split, Task

Arguments = Mapping[str, Any]
Scores = dict[str, float]
_VALIDATIONS = 40  # in a fit that settles


class Plain(LightningModule):
    """Any network with the usual loss; it knows nothing of mixing.

    Args:
        net: Maps inputs to logits of shape (B, C), or to values of shape (B, 1).
        task: How it is trained.
    """

    def __init__(self, net: nn.Module, task: Task) -> None:
        super().__init__()
        self.net = net
        self.task = task

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (B, C), or values of shape (B,)."""
        out: Tensor = self.net(x)
        return out[:, 0] if self.task.is_regression else out

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        """Cross-entropy, or the squared error."""
        x, y = batch
        return (mse_loss if self.task.is_regression else cross_entropy)(self(x), y)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing is measured here; settling looks by itself."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW, whose learning rate follows a cosine to zero."""
        optimizer = torch.optim.AdamW(self.parameters(), self.task.lr, fused=True)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.task.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}


class Permutations(Sampler[list[int]]):
    """Batches cut from one permutation of the data after the other; always the same ones.

    Args:
        size: The number of samples.
        batch_size: Of every batch; at most the number of samples.
        steps: How many batches.
        seed: Of the permutations.
    """

    def __init__(self, size: int, batch_size: int, steps: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        rounds = -(-steps * batch_size // size)
        rows = np.concatenate([rng.permutation(size) for _ in range(rounds)])
        self.batches = rows[: steps * batch_size].reshape(steps, batch_size).tolist()

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


def run(task: Task, arguments: Arguments | None, seed: int, *, held_out: bool = False) -> Scores:
    """Train once, and measure.

    Args:
        task: What.
        arguments: Of :class:`ManifoldMixup`; None trains without.
        seed: Of the split, the weights, the batches and the mixing.
        held_out: Whether to measure on held-out validation data instead of the test data.

    Returns:
        Scores by name: of a classifier ``accuracy``, ``nll``, ``brier``, ``ece``, ``gap``, the last
        four also ``… at T``, the temperature ``T``; of a regression ``rmse``, in the units of the
        data; and accuracy or rmse under each condition. ``train`` is the training accuracy or rmse.
    """
    data = task.split(seed, held_out=held_out)
    module = _trained(task, data, arguments, seed).eval()
    with torch.no_grad():
        train, val, test = ((module(part.tensors[0]), part.tensors[1]) for part in _parts(data))
    measured = _under_conditions(task, module, data)
    if task.is_regression:
        return {"train": _rmse(*train) * data.scale, **measured}
    temperature = temperature_scaling(*val)
    at_t = _scores(test[0] / temperature, test[1])
    return {
        "train": _scores(*train)["accuracy"],
        **measured,
        **_scores(*test),
        "T": float(temperature),
        **{f"{name} at T": value for name, value in at_t.items() if name != "accuracy"},
    }


def _trained(task: Task, data: Split, arguments: Arguments | None, seed: int) -> Plain:
    torch.manual_seed(seed)
    x, y = data.train.tensors
    outputs = 1 if task.is_regression else int(max(part.tensors[1].max() for part in _parts(data)))
    module = Plain(task.network(tuple(x.shape[1:]), outputs + (not task.is_regression)), task)
    batch_size = min(task.batch_size, len(y))
    sampler = Permutations(len(y), batch_size, task.steps, seed)
    settles = arguments is not None and arguments.get("settle", 0) > 0
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[ManifoldMixup(**arguments, seed=seed)] if arguments is not None else [],
        val_check_interval=max(1, task.steps // _VALIDATIONS),
        limit_val_batches=1.0 if settles else 0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning.pytorch")  # hints on workers
        trainer.fit(
            module, DataLoader(data.train, batch_sampler=sampler), DataLoader(data.val, 1000)
        )
    return module


def _under_conditions(task: Task, module: Plain, data: Split) -> Scores:
    x, y = data.test.tensors
    everything = torch.cat([part.tensors[0] for part in _parts(data)])
    units = Units(float(everything.min()), float(everything.max()))
    if not task.is_regression:
        found = evaluate(
            module,
            [(x, y)],
            [*conditions(task.kind).values()],
            units=units,
            progress=False,
        )
        return dict(zip(conditions(task.kind), (row.accuracy for row in found), strict=True))
    scores = {"rmse": _rmse(module(x).detach(), y) * data.scale}
    for name, condition in conditions(task.kind).items():
        rng = np.random.default_rng(0)
        moved = condition.perturb(
            x, lambda x: (module(x) - y).square(), (units.low, units.high), rng
        )
        scores[name] = _rmse(module(moved).detach(), y) * data.scale
    return scores


def _parts(data: Split) -> tuple[Any, Any, Any]:
    return data.train, data.val, data.test


def _scores(logits: Tensor, y: Tensor) -> Scores:
    log_probs = logits.double().log_softmax(1)
    bins = calibration_bins(log_probs, y, 15)
    return {
        "accuracy": float((logits.argmax(1) == y).double().mean()),
        "nll": float(nll_sum(log_probs, y)) / len(y),
        "brier": float(brier_sum(log_probs, y)) / len(y),
        "ece": float(calibration_error(bins)),
        "gap": float(calibration_error(bins, "signed")),
    }


def _rmse(values: Tensor, y: Tensor) -> float:
    return float((values - y).double().square().mean().sqrt()) if len(y) else nan


def quiet() -> None:
    """Keep what every fit says about itself out of the way."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)  # two runs at once use two cores better than one run does

"""Robustness: one evaluation of a classifier over many conditions."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightning_mmix.batches.loaders import num_unrepeated
from lightning_mmix.core.trees import mapped
from lightning_mmix.evaluation.arguments import expect, naming_predictor
from lightning_mmix.evaluation.columns import Columns
from lightning_mmix.evaluation.condition import Condition, Units
from lightning_mmix.evaluation.distortions import Rotation, Shear, Zoom
from lightning_mmix.evaluation.predictions import (
    Predictor,
    evaluating,
    on_device_of,
    predictor_of,
)
from lightning_mmix.evaluation.standard import Clean


@dataclass(frozen=True)
class Row:
    """The scores of a classifier under one condition.

    Attributes:
        condition: Its name: ``"FGSM 0.1"``.
        family: What it is one strength of: ``"FGSM"``.
        strength: ε, degrees, a factor, ...
        unit: Of the strength.
        samples: How many were scored.
        accuracy: In [0, 1].
        nll: Mean of -log p(y), in nats.
        brier: In [0, 2], or [0, 1] of two classes with one score.
        ece: Expected calibration error over 15 bins, in [0, 1].
        smece: The smooth one, in [0, 1], which has no bins.
        gap: Mean confidence minus accuracy, in [-1, 1].

    Example:
        >>> loader = [(torch.tensor([[0.0, 3.0], [3.0, 0.0]]), torch.tensor([1, 1]))]
        >>> (row,) = evaluate(nn.Identity(), loader, [Clean()], progress=False, units=Units(0, 3))
        >>> row.condition, row.samples, row.accuracy, round(row.gap, 3)
        ('clean', 2, 0.5, 0.453)
    """

    condition: str
    family: str
    strength: float
    unit: str
    samples: int
    accuracy: float
    nll: float
    brier: float
    ece: float
    smece: float
    gap: float


class Evaluation:
    """A classifier being evaluated, batch by batch, under several conditions at once.

    Args:
        predictor: Whose predictions are scored.
        conditions: Under which; the clean data are scored without leaving the network's units.
        units: Of the data.
        seed: Of all random conditions, which draw the same for every model: in [0, 2⁶⁴).

    Example:
        >>> evaluation = Evaluation(Predictor(nn.Identity()), [Clean()])
        >>> batches = [(9 * torch.eye(2), torch.tensor(labels)) for labels in ([0, 1], [0, 0])]
        >>> for batch_idx, batch in enumerate(batches):
        ...     evaluation.update(batch, batch_idx)
        >>> evaluation.rows()[0].accuracy
        0.75
    """

    def __init__(
        self,
        predictor: Predictor,
        conditions: Sequence[Condition],
        *,
        units: Units | None = None,
        seed: int = 0,
    ) -> None:
        self.predictor = predictor
        self.conditions = _listed(conditions)
        self.units = units or Units()
        self.seed = seed
        self._columns = Columns()
        self._tallies = [predictor.tally() for _ in self.conditions]
        for tally in self._tallies[1:]:
            tally.looked = True  # what there is to doubt, the first one says

    def update(self, batch: Any, batch_idx: int, count: int | None = None) -> None:
        """Score a batch under every condition.

        Args:
            batch: What the data loader yields, on the model's device. It stays as it is.
            batch_idx: Its position.
            count: How many of its first samples count; None for all.
        """
        # a Trainer's batch may come from inference mode, where no gradient can be taken
        with torch.inference_mode(False), torch.no_grad():
            batch = mapped(batch, torch.clone)
            target = self.predictor.target(batch)
            for condition, tally in zip(self.conditions, self._tallies, strict=True):
                perturbed = self._under(condition, batch, batch_idx)
                preds = self.predictor(perturbed)[:count]
                tally.update(preds, target[:count])
            self._columns.update(preds, target[:count], self.predictor.ignore_index)

    def rows(self) -> list[Row]:
        """A row a condition, over all processes, which have to call this together."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchmetrics', of a process without batches
            scores = [tally.compute() for tally in self._tallies]
        rows = [_row(*pair) for pair in zip(self.conditions, scores, strict=True)]
        if _rank() == 0:
            self._columns.doubt(max((row.accuracy for row in rows), default=1.0))
        return rows

    def _under(self, condition: Condition, batch: Any, batch_idx: int) -> Any:
        if isinstance(condition, Clean):
            return batch
        predictor, units = self.predictor, self.units
        x = predictor.input(batch)
        _refuse_unfit(condition, x, predictor.target(batch))

        def loss(data: Tensor) -> Tensor:
            return predictor.losses(predictor.with_input(batch, units.of_network(data).to(x.dtype)))

        rng = np.random.Generator(
            np.random.Philox(key=self.seed, counter=[0, batch_idx, _rank(), 0])
        )
        data = condition.perturb(units.of_data(x), loss, (units.low, units.high), rng)
        return predictor.with_input(batch, units.of_network(data).to(x.dtype))


def evaluate(  # noqa: PLR0913 - each is one decision of the user's, all but three by keyword
    model: nn.Module | Predictor,
    loader: Iterable[Any],
    conditions: Sequence[Condition],
    *,
    units: Units | None = None,
    ignore_index: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> list[Row]:
    """Score a classifier under several conditions: clean, attacked, deformed, corrupted.

    The model runs in evaluation mode on its own device, and is left as it was. Under DDP every
    process scores its share, without the samples that a distributed sampler repeats, and all get
    the same rows.

    Args:
        model: Any classifier that puts out logits, a LightningModule too; or a
            :class:`Predictor`, to say where its batches hold what.
        loader: Yields batches as in training.
        conditions: What may be done to inputs: see :mod:`lightning_mmix.evaluation`.
        units: Of the data: their range, and what they were normalised by.
        ignore_index: The label of samples, pixels or tokens to leave out of all scores.
        seed: Of all random conditions.
        progress: Whether to show a progress bar, on the first process.

    Returns:
        A row a condition, in their order.

    Raises:
        ValueError: If a batch gets no predictions, or its inputs fit no range or condition.
        TypeError: If the model is no module.

    Example:
        >>> from lightning_mmix.evaluation import FGSM, Clean, evaluate
        >>> loader = [(torch.tensor([[0.8, 0.3], [0.4, 0.6]]), torch.tensor([0, 1]))]
        >>> rows = evaluate(nn.Identity(), loader, [Clean(), FGSM(0.15)], progress=False)
        >>> [(row.condition, row.accuracy) for row in rows]
        [('clean', 1.0), ('FGSM 0.15', 0.5)]
    """
    from rich.progress import track  # noqa: PLC0415 - after Lightning, see faces.py

    predictor = predictor_of(model, ignore_index)
    evaluation = Evaluation(predictor, conditions, units=units, seed=seed)
    is_shown = progress and _rank() == 0  # rich 13 ends a bar that is not with an empty line
    batches = track(loader, "evaluating", transient=True) if is_shown else loader
    # a DataLoader draws from the global generator whenever it begins
    with evaluating(predictor.model), torch.random.fork_rng([]), naming_predictor(model):
        for batch_idx, batch in enumerate(batches):
            count = num_unrepeated(loader, batch_idx, len(predictor.target(batch)))
            evaluation.update(on_device_of(predictor.model, batch), batch_idx, count)
    return evaluation.rows()


def _listed(conditions: Any) -> list[Condition]:
    listed: list[Any] = list(conditions) if isinstance(conditions, Iterable) else [None]
    are_conditions = all(isinstance(each, Condition) for each in listed)
    expect(are_conditions, "a list of conditions, as [Clean()]", conditions)
    return listed


def _row(condition: Condition, scores: dict[str, Tensor]) -> Row:
    names = ("accuracy", "nll", "brier", "ece", "smece", "gap")
    about = (condition.name, condition.family, condition.strength, condition.unit)
    return Row(*about, int(scores["samples"]), *(float(scores[name]) for name in names))


def _refuse_unfit(condition: Condition, x: Tensor, target: Tensor) -> None:
    name = condition.name
    if isinstance(condition, Rotation | Shear | Zoom) and target.dim() > 1:
        raise ValueError(f"{name} would move the pixels, but not their labels; leave it out")
    if not x.is_floating_point():
        raise ValueError(f"{name} needs a floating-point input, but got {x.dtype}")
    if condition.images_only and x.dim() != 4:
        raise ValueError(f"{name} needs images of shape (B, C, H, W), but got {tuple(x.shape)}")


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0

"""The measurement of a trained classifier: all scores, by way of its Trainer's own loops."""

import math
import sys
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor

from lightning_mmix.compare.instructions import Instructions
from lightning_mmix.core.layers import INPUT
from lightning_mmix.engine.choice import survey
from lightning_mmix.evaluation.boundaries import Interpolation, interpolate_between
from lightning_mmix.evaluation.condition import Condition, Units
from lightning_mmix.evaluation.hidden import Spectra
from lightning_mmix.evaluation.predictions import Predictor
from lightning_mmix.evaluation.robustness import Evaluation
from lightning_mmix.evaluation.standard import Clean, standard_conditions
from lightning_mmix.metrics.scores import Tally
from lightning_mmix.metrics.temperature import Kept, tempered
from lightning_mmix.training.host import TrainerHost
from lightning_mmix.training.temperature.scaling import scalings_of
from lightning_mmix.training.visits import has, stage_of, total_of, visited

_INTERPOLATED = 4  # batches
_MOST_MOMENTS = 2**27  # numbers for the spectrum of a layer: 1 GiB


def measure(
    trainer: Trainer,
    model: LightningModule,
    data: LightningDataModule | None,
    instructions: Instructions,
) -> dict[str, Any]:
    """Measure a trained classifier on its test data, or for want of them its validation data.

    A temperature is fitted on validation data, if there are test data apart from them. Predictions
    of another kind than a classifier's leave only what the module itself logs.

    Args:
        trainer: Which trained it.
        model: Any LightningModule.
        data: Its data, if it does not bring them itself.
        instructions: How to measure.

    Returns:
        In plain containers: ``stage``, ``own`` (what the module logs), and, of a classifier,
        ``clean``, ``tempered``, ``temperature``, ``bins``, ``spectrum``, ``interpolation`` and
        ``conditions``; otherwise the reason, as ``unmeasured``.
    """
    run, stage = partial(_visited_as_trained, trainer, model, data), stage_of(model, data)
    collected = _Collected(instructions.predictor(model))
    if stage == "test" and has(model, data, "validation"):
        run("validate", collected.visit)
    look = _Look(
        trainer, instructions.predictor(model), instructions, collected.temperature(trainer)
    )
    found: dict[str, Any] = {"stage": stage, "own": run(stage, look.visit)}
    if look.problem is not None:
        return {**found, "unmeasured": look.problem}
    stressed = _Stressed(look.evaluation(), -(-instructions.samples // trainer.world_size))
    run(stage, stressed.visit)
    rows = [asdict(row) for row in stressed.evaluation.rows()]
    return {**found, **look.found(), "conditions": rows}


def _visited_as_trained(trainer: Trainer, *which: Any) -> dict[str, float]:
    """:func:`visited`, with no logits divided: scores as trained stand beside those at T."""
    divides = [scaling for scaling in scalings_of(trainer) if scaling.apply]
    try:
        for scaling in divides:
            scaling.apply = False
        return visited(trainer, *which)
    finally:
        for scaling in divides:
            scaling.apply = True


class _Collected:
    """Predictions of validation data, to fit a temperature to."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._kept = Kept(predictor.form, predictor.ignore_index)
        self._refused = 0.0

    def visit(self, batch: Any, _batch_idx: int, count: int) -> None:
        try:
            preds, target = self._predictor(batch), self._predictor.target(batch)
            self._kept.update(preds[:count], target[:count])
        except (TypeError, ValueError):  # what is wrong, the test data will tell
            self._refused += 1

    def temperature(self, trainer: Trainer) -> Tensor | None:
        """The temperature; None without samples, or where some of them have no labels."""
        total = total_of(trainer)
        found, refused = self._kept.fit(total), total(torch.tensor(self._refused))
        return None if found is None or refused else torch.tensor(found.T, dtype=torch.float64)


class _Look:
    """Everything that one pass over the clean data shows."""

    def __init__(
        self, trainer: Trainer, predictor: Predictor, how: Instructions, temperature: Tensor | None
    ) -> None:
        self.problem: str | None = None  # why these are no predictions of a classifier
        self._trainer = trainer
        self._how = how
        self._predictor = predictor
        self._temperature = temperature
        self._clean, self._tempered = predictor.tally(), Tally()
        self._spectra: Spectra | None = None
        self._paths: dict[str, list[Interpolation]] = {}
        self._low, self._high = float("inf"), float("-inf")
        self._sums = torch.zeros(3, dtype=torch.float64)  # of inputs: how many, x and x²
        self._kind, self._channels = "other", 1  # or images, or values
        self._dims = 0
        self._unperturbed = ""  # why inputs were left as they are

    def visit(self, batch: Any, batch_idx: int, count: int) -> None:
        if self.problem is not None:
            return
        try:
            if self._spectra is None:
                layers = self._chosen(batch)
                self._spectra = Spectra(self._predictor, layers, most=_MOST_MOMENTS)
            self._score(*self._spectra.update(batch, count))
        except (TypeError, ValueError) as error:
            self.problem = str(error)
            return
        try:
            self._look_at_input(self._predictor.input(batch), self._predictor.target(batch))
        except (TypeError, ValueError) as error:
            self._unperturbed = str(error)
        if batch_idx < _INTERPOLATED:
            self._interpolate(batch, self._spectra.layers)

    def evaluation(self) -> Evaluation:
        """An evaluation under all conditions that the data allow."""
        how, units = self._how, Units()
        conditions: list[Condition] = [Clean()]
        low, high = self._range()
        if self._kind != "other" and low < high:
            units = Units(low, high, how.mean, how.std)
            taken: Any = {"images": self._kind == "images", "fast": how.fast, "std": self._std()}
            conditions = standard_conditions((low, high), **taken)
        return Evaluation(self._predictor, list(filter(self._allows, conditions)), units=units)

    def found(self) -> dict[str, Any]:
        """All of it, in plain containers."""
        clean, temperature = self._clean.compute(), self._temperature
        bins = clean.pop("bins").tolist()
        largest = partial(self._trainer.strategy.reduce, reduce_op="max")
        spectra = {} if self._spectra is None else self._spectra.compute(largest)
        return {
            "unperturbed": self._unperturbed,
            "clean": _plain(clean),
            "bins": bins,
            "temperature": None if temperature is None else float(temperature),
            "tempered": None if temperature is None else _plain(self._tempered.compute()),
            "spectrum": {name: values.tolist() for name, values in spectra.items()},
            "interpolation": {name: _mean_path(paths) for name, paths in self._paths.items()},
        }

    def _chosen(self, batch: Any) -> list[str]:
        """The layers whose states are looked at: those that ``"auto"`` would mix."""
        chosen: list[str] = []
        if self._predictor.target(batch).dim() == 1:
            model, how = self._trainer.lightning_module, self._how
            host = TrainerHost(self._trainer, model)
            with suppress(TypeError, ValueError):
                _, chosen = survey(host, model, batch, how.target, how.input)
        # another process, with another batch, might choose others
        names: list[str] = self._trainer.strategy.broadcast([n for n in chosen if n != INPUT])
        return names

    def _score(self, preds: Tensor, target: Tensor) -> None:
        self._clean.to(preds.device).update(preds, target)
        if self._temperature is not None:
            how = self._how
            rows = tempered(preds, target, self._temperature, how.form, how.ignore_index)
            self._tempered.to(preds.device).update(*rows)

    def _look_at_input(self, x: Tensor, target: Tensor) -> None:
        if not x.is_floating_point() or not len(x):
            return
        self._kind = "images" if x.dim() == 4 and target.dim() == 1 else "values"
        self._dims, self._channels = x.dim(), x.shape[1] if x.dim() > 1 else 1
        data = Units(float("-inf"), float("inf"), self._how.mean, self._how.std).of_data(x)
        self._low = min(self._low, float(data.min()))
        self._high = max(self._high, float(data.max()))
        wide = data.detach().cpu().double()
        self._sums += torch.stack([wide.new_tensor(wide.numel()), wide.sum(), wide.square().sum()])

    def _interpolate(self, batch: Any, layers: list[str]) -> None:
        inputs = [] if self._kind == "other" else [INPUT]
        for name in [*inputs, *layers]:
            with suppress(ValueError):  # of a batch of one class
                path = interpolate_between(self._predictor, batch, name)
                self._paths.setdefault(name, []).append(path)

    def _range(self) -> tuple[float, float]:
        ends = torch.tensor([-self._low, self._high], device=self._trainer.strategy.root_device)
        ends = self._trainer.strategy.reduce(ends, reduce_op="max")
        low, high = -float(ends[0]), float(ends[1])
        how = self._how
        return (low if how.low is None else how.low, high if how.high is None else how.high)

    def _std(self) -> float:
        count, first, second = total_of(self._trainer)(self._sums).tolist()
        is_said = self._how.low is not None or self._how.high is not None
        # images fill their range, and of a range that is said nothing is an outlier
        if is_said or self._dims == 4:
            return math.inf
        std = math.sqrt(max(second / count - (first / count) ** 2, 0.0))
        return float(f"{std:.2g}")  # for strengths that can be read

    def _allows(self, condition: Condition) -> bool:
        return self._channels in (1, 3) or getattr(condition, "kind", None) != "jpeg"


class _Stressed:
    """The first samples under all conditions."""

    def __init__(self, evaluation: Evaluation, most: int) -> None:
        self.evaluation = evaluation
        self._left = most or sys.maxsize

    def visit(self, batch: Any, batch_idx: int, count: int) -> None:
        count = min(count, self._left, len(self.evaluation.predictor.target(batch)))
        self._left -= count
        if count > 0:
            self.evaluation.update(batch, batch_idx, count)


def _plain(scores: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in scores.items() if name != "bins"}


def _mean_path(paths: list[Interpolation]) -> dict[str, list[float]]:
    names = ("lam", "confidence", "own", "partner")
    return {n: torch.stack([getattr(path, n) for path in paths]).mean(0).tolist() for n in names}

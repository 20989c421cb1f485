"""The monitor: calibration and spectrum of any classifier while it trains."""

import warnings
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any, get_args

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from lightning_mmix.batches.loaders import first_loader, num_unrepeated
from lightning_mmix.core.trees import Path
from lightning_mmix.evaluation.hidden import Spectra
from lightning_mmix.evaluation.predictions import Predictor
from lightning_mmix.metrics.samples import Form
from lightning_mmix.metrics.scores import Tally
from lightning_mmix.metrics.spectrum import Statistic, spectrum_statistic

_SCORES = ("accuracy", "nll", "brier", "ece", "smece", "mce", "gap")


class CalibrationMonitor(Callback):
    """Log how well a classifier is calibrated, and how flat its hidden states are.

    After each validation it logs, over the first validation loader and all processes,
    ``monitor/`` ``accuracy``, ``nll``, ``brier``, ``ece``, ``smece`` (the smooth one), ``mce`` and
    the signed ``gap`` (confidence minus accuracy); every few epochs also
    ``monitor/spectrum/<layer>/`` ``largest``, ``rest`` and ``rank`` of the centred states of each
    class. TensorBoard gets a reliability diagram, if matplotlib is installed. Of the sanity check
    it takes the first batch, to say before the training what it can't score, and logs nothing.

    It costs one more forward pass of the validation set in epochs that it looks at, and for each
    layer in the spectrum 8·C·D² bytes, for C classes and D features.

    Args:
        layers: Whose spectrum is logged: names or globs.
        every_n_epochs: How often to look, ≥ 1.
        spectrum_every_n_epochs: How often to look at the spectrum.
        form: Whether the network puts out ``"logits"`` or ``"probabilities"``.
        target: Where a batch holds its target; None looks by itself.
        input: Where a batch holds its input.
        output: Where the network's output holds the predictions.
        ignore_index: The label of samples, pixels or tokens that count nowhere.

    Raises:
        ValueError: If a number of epochs is less than one.

    Example:
        >>> import torch
        >>> from lightning_mmix import ManifoldMixupClassifier
        >>> data = torch.utils.data.TensorDataset(9 * torch.eye(3), torch.tensor([0, 1, 1]))
        >>> module = ManifoldMixupClassifier(torch.nn.Identity(), num_classes=3)
        >>> quiet = {"devices": 1, "logger": False, "enable_progress_bar": False}
        >>> trainer = Trainer(callbacks=[CalibrationMonitor()], **quiet)
        >>> logged = trainer.validate(module, torch.utils.data.DataLoader(data, 3), verbose=False)
        >>> round(logged[0]["monitor/accuracy"], 2), round(logged[0]["monitor/gap"], 2)
        (0.67, 0.33)
    """

    def __init__(  # noqa: PLR0913 - each is one decision of the user's, all but one by keyword
        self,
        layers: Sequence[str] = (),
        *,
        every_n_epochs: int = 1,
        spectrum_every_n_epochs: int = 10,
        form: Form = "logits",
        target: Path | None = None,
        input: Path | None = None,  # noqa: A002 - the callback's word
        output: Path | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("", every_n_epochs), ("spectrum_", spectrum_every_n_epochs)):
            if value < 1:
                raise ValueError(f"expected {name}every_n_epochs ≥ 1, but got {value}")
        self.layers = layers
        self.every_n_epochs = every_n_epochs
        self.spectrum_every_n_epochs = spectrum_every_n_epochs
        self._where = {"form": form, "target": target, "input": input, "output": output}
        self._ignore_index = ignore_index
        self._tally: Tally | None = None
        self._spectra: Spectra | None = None

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tally = self._spectra = None
        epoch = trainer.current_epoch if trainer.state.fn == TrainerFn.FITTING else 0
        often = trainer.check_val_every_n_epoch or 1  # a validation stands for so many epochs
        if not trainer.sanity_checking and epoch % self.every_n_epochs >= often:
            return
        where: Any = self._where
        predictor = Predictor(pl_module, **where, ignore_index=self._ignore_index)
        layers = () if epoch % self.spectrum_every_n_epochs >= often else self.layers
        self._tally = predictor.tally()
        self._spectra = Spectra(predictor, layers)

    @override
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._tally is None or self._spectra is None or dataloader_idx > 0:
            return
        if trainer.sanity_checking and batch_idx > 0:
            return
        size = len(self._spectra.predictor.target(batch))
        count = num_unrepeated(first_loader(trainer.val_dataloaders), batch_idx, size)
        with trainer.precision_plugin.forward_context():
            self._tally.update(*self._spectra.update(batch, count))

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._tally is None or self._spectra is None or trainer.sanity_checking:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchmetrics', of a process without batches
            scores = self._tally.compute()
            spectra = self._spectra.compute(partial(trainer.strategy.reduce, reduce_op="max"))
        values = {f"monitor/{name}": scores[name] for name in _SCORES}
        for name, spectrum in spectra.items():
            present = spectrum[spectrum[:, 0] > 0]
            for statistic in get_args(Statistic):
                value = spectrum_statistic(present, statistic).mean()
                values[f"monitor/spectrum/{name}/{statistic}"] = value.float()
        pl_module.log_dict(values, sync_dist=True)  # all have the same; else Lightning warns
        if scores["samples"] != 0:
            _draw(trainer, scores["bins"].cpu())
        self._tally = self._spectra = None


def _draw(trainer: Trainer, bins: Tensor) -> None:
    """Give a reliability diagram to every logger that takes figures."""
    experiments = [getattr(logger, "experiment", None) for logger in trainer.loggers]
    boards = [e.add_figure for e in experiments if e is not None and hasattr(e, "add_figure")]
    if not (boards and trainer.is_global_zero and find_spec("matplotlib")):
        return
    from lightning_mmix.plots.diagrams import reliability_diagram  # noqa: PLC0415 - of the report extra

    for add_figure in boards:
        figure = reliability_diagram({f"epoch {trainer.current_epoch}": bins})
        add_figure("monitor/reliability", figure, trainer.global_step)

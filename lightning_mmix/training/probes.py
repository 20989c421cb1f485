"""Probes of a LightningModule: of its forward pass, or else of its training step."""

from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor

from lightning_mmix.core.trees import Path
from lightning_mmix.cuts.calls import NoForwardError, few_then_all
from lightning_mmix.cuts.probe import Probe
from lightning_mmix.cuts.verification import probe_on, probed
from lightning_mmix.pairing.refusals import first_line
from lightning_mmix.training.trials import step_of, unheard, unlogged

_SHARDED = (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)


def probe_of(
    trainer: Trainer,
    module: LightningModule,
    batch: Any,
    targets: Sequence[Tensor],
    path: Path | None,
) -> Probe:
    """Probe a module on a few samples of a batch.

    The forward pass is probed; of a module in which none takes the batch the training step, as far
    as a graph shows what its loss depends on. Nothing is logged, and nothing stays of the step.

    Args:
        trainer: Whose precision is used.
        module: Any LightningModule.
        batch: A training batch.
        targets: Its targets, of two or more samples.
        path: Where the batch holds its input; None looks by itself.

    Raises:
        NoForwardError: If neither can be run on the batch, or parameters are sharded.
    """
    if isinstance(trainer.strategy, _SHARDED):
        raise NoForwardError(
            "parameters are sharded, so no forward pass can be run beside the training"
        )
    try:
        with unlogged(module, trainer):
            return probe_on(module, batch, targets, path)
    except NoForwardError as error:
        return _probe_of_step(trainer, module, batch, targets, path, error)


def _probe_of_step(
    trainer: Trainer,
    module: LightningModule,
    batch: Any,
    targets: Sequence[Tensor],
    path: Path | None,
    error: NoForwardError,
) -> Probe:
    if not module.automatic_optimization:
        raise NoForwardError(
            f"{error}, and its training step can't be run as a test, since it uses manual "
            "optimization (automatic_optimization=False); losses without labels, as a GAN's, can't "
            "be mixed"
        ) from error
    problems: list[Exception] = []
    step = _unheard_step(trainer, module)
    probe = probed(module, few_then_all(step, (batch,), batch, targets, path), problems)
    if probe is None:
        told = first_line(problems[-1])
        raise NoForwardError(f"{error}, and its training step can't be tested ({told})") from error
    return probe


def _unheard_step(trainer: Trainer, module: LightningModule) -> Callable[[Any], Any]:
    step = step_of(trainer, module, 0)

    def training_step(batch: Any) -> Any:
        with unheard(module, trainer):
            return step(batch)

    return training_step

"""Trials: a module's forward pass or training step, run without being heard."""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature


def step_of(trainer: Trainer, module: LightningModule, batch_idx: int) -> Callable[[Any], Any]:
    """A function that runs a module's training step on a batch and gives its loss.

    Args:
        trainer: Whose precision is used.
        module: The module.
        batch_idx: What the step is told of the batch's position.
    """
    takes_index = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)

    def step(batch: Any) -> Any:
        with trainer.precision_plugin.train_step_context():
            output = module.training_step(batch, *([batch_idx] if takes_index else []))
        return output.get("loss") if isinstance(output, Mapping) else output

    return step


def mixes_loss_itself(module: LightningModule) -> bool:
    """Whether a module's training step mixes its loss, so that its targets are left alone."""
    return getattr(module.training_step, "mixes_loss", False)


@contextmanager
def unlogged(module: LightningModule, trainer: Trainer) -> Iterator[None]:
    """Run a module in the precision of its Trainer, with nothing logged."""
    own = vars(module)
    names: tuple[str, ...] = ("log", "log_dict")
    shadowed = {name: own[name] for name in names if name in own}
    own.update(log=_nothing, log_dict=_nothing)
    try:
        with trainer.precision_plugin.forward_context():
            yield
    finally:
        del own["log"], own["log_dict"]
        own.update(shadowed)


@contextmanager
def unheard(module: LightningModule, trainer: Trainer) -> Iterator[None]:
    """Run a module with nothing logged, printed or warned of."""
    loggers = trainer.loggers
    try:
        trainer.loggers = [DummyLogger()] if loggers else []
        with (
            unlogged(module, trainer),
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        trainer.loggers = loggers


def _nothing(*_: Any, **__: Any) -> None:
    pass

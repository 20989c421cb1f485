"""Trials: a module's forward pass or training step, run without being heard."""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch.utils.data import DataLoader
from typing_extensions import override

_LIBRARIES = ("lightning", "pytorch_lightning", "lightning_mmix")  # they save, show and monitor

_Data = DataLoader[Any] | LightningDataModule | None


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


@contextmanager
def alone(trainer: Trainer) -> Iterator[None]:
    """Let nothing mix, log, show or save in a Trainer's loops, in which the user's callbacks stay.

    Args:
        trainer: Any, whose callbacks and loggers are back in the end.
    """
    callbacks, loggers = trainer.callbacks, trainer.loggers  # type: ignore[attr-defined]
    steps = trainer.num_sanity_val_steps
    others = [each for each in callbacks if _library(each) not in _LIBRARIES]
    trainer.callbacks = others  # type: ignore[attr-defined]
    trainer.loggers, trainer.num_sanity_val_steps = [DummyLogger()], 0
    try:
        yield
    finally:
        trainer.callbacks, trainer.loggers = callbacks, loggers  # type: ignore[attr-defined]
        trainer.num_sanity_val_steps = steps


def at_first_batch(
    trainer: Trainer, module: LightningModule, data: _Data, look: Callable[[Any], Any]
) -> Any:
    """Begin a fit, and end it with its first batch, before anything is trained.

    Args:
        trainer: Any.
        module: Its module.
        data: As for ``Trainer.fit``.
        look: Takes the batch, as the training step would.

    Returns:
        What ``look`` made of it.

    Raises:
        ValueError: If there is no batch.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    first = _First(look)
    callbacks.insert(0, first)
    try:
        trainer.fit(module, data)
    except _Seen as seen:
        return seen.found
    finally:
        callbacks.remove(first)
    raise ValueError("there was no batch to check")


class _Seen(Exception):  # noqa: N818 - it is no error
    """Ends a fit once its first batch was looked at."""

    def __init__(self, found: Any) -> None:
        super().__init__("the first batch was seen")
        self.found = found


class _First(Callback):
    """Shows the first batch of a fit to a function, and ends the fit."""

    def __init__(self, look: Callable[[Any], Any]) -> None:
        self._look = look

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        raise _Seen(self._look(batch))


def _library(callback: Callback) -> str:
    return type(callback).__module__.partition(".")[0]


def _nothing(*_: Any, **__: Any) -> None:
    pass

"""The host that a Trainer is to the engine: its precision, its processes, its training step."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from typing_extensions import override

from lightning_mmix.core.checks import first_line
from lightning_mmix.core.plan import Recipe
from lightning_mmix.core.trees import Path, entries, tensors
from lightning_mmix.cuts.calls import NoForwardError, few_then_all
from lightning_mmix.cuts.probe import Probe
from lightning_mmix.cuts.sites import Site
from lightning_mmix.cuts.tables import layer_table, rendered
from lightning_mmix.cuts.verification import probe_on, probed
from lightning_mmix.engine.host import SHARDED, Host, Run
from lightning_mmix.training.trials import mixes_loss_itself, step_of, unheard, unlogged

_SHARDED = (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)


class TrainerHost(Host):
    """A Trainer, of which an engine asks what it can't know itself.

    Args:
        trainer: Any Trainer.
        module: Its module.
    """

    def __init__(self, trainer: Trainer, module: LightningModule) -> None:
        self._trainer = trainer
        self._module = module

    @property
    @override
    def rank(self) -> int:
        return self._trainer.global_rank

    @property
    @override
    def pairs(self) -> bool:
        return not mixes_loss_itself(self._module)

    @property
    @override
    def returns_loss(self) -> bool:
        return self._module.automatic_optimization

    @property
    @override
    def may_run_another(self) -> bool:
        return False

    @override
    def running(self) -> AbstractContextManager[None]:
        return unlogged(self._module, self._trainer)

    @override
    def tell(self, value: Any) -> Any:
        return self._trainer.strategy.broadcast(value)

    @override
    def warn(self, message: str) -> None:
        rank_zero_warn(message)

    @override
    def probe(
        self, model: nn.Module, batch: Any, targets: Sequence[Tensor], path: Path | None
    ) -> Probe:
        """Probe a module on a few samples of a batch.

        The forward pass is probed; of a module in which none takes the batch the training step, as
        far as a graph shows what its loss depends on. Nothing is logged, and nothing stays of it.

        Raises:
            NoForwardError: If neither can be run on the batch, or parameters are sharded.
        """
        if isinstance(self._trainer.strategy, _SHARDED):
            raise NoForwardError(SHARDED)
        try:
            with self.running():
                return probe_on(model, batch, targets, path)
        except NoForwardError as error:
            return self._probe_of_step(batch, targets, path, error)

    @override
    def judge(self, batch: Any, targets: Sequence[Tensor]) -> None:
        loaders = self._trainer.fit_loop._combined_loader
        own = {id(target) for target in targets}
        holders = [part for _, part in entries(batch) if any(id(t) in own for t in tensors(part))]
        if loaders is not None and len(loaders.flattened) > 1 and len(holders) > 1:
            raise ValueError(
                "the batch holds targets of several data loaders, but only the input of one can be "
                "mixed; name layers without 'input'"
            )

    @override
    def show(self, recipe: Recipe, sites: Mapping[str, Site], found: str) -> None:
        # by name, since the pytorch_lightning package has a ModelSummary of its own
        callbacks: list[Callback] = self._trainer.callbacks  # type: ignore[attr-defined]
        kinds = [kind for callback in callbacks for kind in type(callback).__mro__]
        if any(kind.__name__ == "ModelSummary" for kind in kinds):
            self._trainer.print(rendered(layer_table(recipe, sites, found)))

    @override
    def deviation(self, index: int, measure: Callable[[Run], float | None]) -> float | None:
        if self._trainer.world_size > 1 or not self.returns_loss:
            return None
        try:
            with unheard(self._module, self._trainer):
                return measure(step_of(self._trainer, self._module, index))
        except Exception:  # not every step can be run again
            return None

    def _probe_of_step(
        self, batch: Any, targets: Sequence[Tensor], path: Path | None, error: NoForwardError
    ) -> Probe:
        if not self.returns_loss:
            raise NoForwardError(
                f"{error}, and its training step can't be run as a test, since it uses manual "
                "optimization (automatic_optimization=False); losses without labels, as a GAN's, "
                "can't be mixed"
            ) from None
        problems: list[Exception] = []
        some = few_then_all(self._unheard_step(), (batch,), batch, targets, path)
        probe = probed(self._module, some, problems)
        if probe is None:
            told = first_line(problems[-1])
            raise NoForwardError(
                f"{error}, and its training step can't be tested ({told})"
            ) from None
        return probe

    def _unheard_step(self) -> Callable[[Any], Any]:
        step = step_of(self._trainer, self._module, 0)

        def training_step(batch: Any) -> Any:
            with unheard(self._module, self._trainer):
                return step(batch)

        return training_step

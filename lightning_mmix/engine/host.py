"""The host: what an engine asks of the loop that it runs in."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from lightning_mmix.core.plan import Recipe
from lightning_mmix.core.trees import Path
from lightning_mmix.cuts.calls import NoForwardError
from lightning_mmix.cuts.probe import Probe
from lightning_mmix.cuts.sites import Site
from lightning_mmix.cuts.verification import probe_on

Run = Callable[[Any], Any]

SHARDED = "parameters are sharded, so no forward pass can be run beside the training"


class Host:
    """A loop of one's own, which knows no Trainer; a Trainer answers otherwise."""

    @property
    def rank(self) -> int:
        """The process, ≥ 0."""
        return dist.get_rank() if _is_distributed() else 0

    @property
    def pairs(self) -> bool:
        """Whether targets are paired; a training step may mix its loss itself."""
        return True

    @property
    def returns_loss(self) -> bool:
        """Whether a step returns its loss, and whoever called it takes the gradient."""
        return False

    @property
    def may_run_another(self) -> bool:
        """Whether the model that is trained may be another one than was given to be mixed."""
        return True

    def running(self) -> AbstractContextManager[None]:
        """In which a network may run beside the training."""
        return nullcontext()

    def probe(
        self, model: nn.Module, batch: Any, targets: Sequence[Tensor], path: Path | None
    ) -> Probe:
        """Probe a model on a few samples of a batch, as :func:`~.verification.probe_on` does.

        Raises:
            NoForwardError: If its forward pass does not take the batch, or it is sharded.
        """
        if _is_sharded(model):
            raise NoForwardError(SHARDED)
        return probe_on(model, batch, targets, path)

    def tell(self, value: Any) -> Any:
        """What the first process has, for all of them, which have to call this together."""
        if not _is_distributed():
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def warn(self, message: str) -> None:
        """Warn in one of the processes."""
        if self.rank == 0:
            warnings.warn(message, stacklevel=2)

    def judge(self, batch: Any, targets: Sequence[Tensor]) -> None:
        """Refuse to mix the input of a batch that is put together from several."""

    def show(self, recipe: Recipe, sites: Mapping[str, Site], found: str) -> None:
        """Show the eligible layers, and what was found in the first batch."""

    def deviation(self, index: int, measure: Callable[[Run], float | None]) -> float | None:  # noqa: ARG002 - a loop can't be asked
        """How far the loss of a step for the partners' targets is off; None if that is unknown.

        A loop can't be asked to run a step again, and most of what it takes out of torch it logs.

        Args:
            index: The position of the step's batch.
            measure: Takes a function that runs the training step on a batch.
        """
        return 0.0


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _is_sharded(model: nn.Module) -> bool:
    """Whether a part of a model needs all processes to run it."""
    if not _is_distributed():
        return False
    from torch.distributed.fsdp import FullyShardedDataParallel  # noqa: PLC0415 - of some builds
    from torch.distributed.tensor import DTensor  # noqa: PLC0415 - likewise

    is_wrapped = any(isinstance(each, FullyShardedDataParallel) for each in model.modules())
    return is_wrapped or any(isinstance(each, DTensor) for each in model.parameters())

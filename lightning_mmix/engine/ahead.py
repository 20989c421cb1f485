"""Steps made ahead: plans drawn together, since one by one they cost thrice as much.

A plan is a function of where its step stands, so that it is the same whenever it is drawn.
"""

import torch
from torch import nn

from lightning_mmix.core.plan import Recipe, draw
from lightning_mmix.pairing.step import Step

_MOST = 64


class StepsAhead:
    """Makes the steps of a model, as each would be made for its batch alone.

    Args:
        model: Any module.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._recipe: Recipe | None = None
        self._now: tuple[object, ...] = ()
        self._next = 0
        self._count = 1
        self._ready: list[Step | None] = []

    def at(
        self,
        recipe: Recipe,
        batch_size: int,
        device: torch.device,
        of: tuple[int, int, int],
        batch_idx: int,
    ) -> Step | None:
        """The step of a batch, None where it is not mixed.

        Args:
            recipe: What its plan is drawn from.
            batch_size: B, the number of samples.
            device: Of the targets.
            of: Seed, epoch and process.
            batch_idx: The batch within the epoch.
        """
        now = batch_size, device, of
        if recipe is not self._recipe or batch_idx != self._next or now != self._now:
            self._recipe, self._now, self._count, self._ready = recipe, now, 1, []
        if not self._ready:
            seed, epoch, rank = of
            for index in reversed(range(batch_idx, batch_idx + self._count)):
                plan = draw(recipe, batch_size, seed=seed, epoch=epoch, batch_idx=index, rank=rank)
                step = None if plan is None else Step(plan.to(device), self._model)
                self._ready.append(step)
            self._count = min(2 * self._count, _MOST)
        self._next = batch_idx + 1
        return self._ready.pop()

"""Where a batch holds its target, remembered from a batch of the same structure."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_mmix.batches.roles import find_targets
from lightning_mmix.core.trees import Path


class TargetMemory:
    """Finds the targets of batches as :func:`find_targets` does, which looks at names and shapes.

    It is asked again where the structure is another one, or is no flat container of tensors.
    """

    def __init__(self) -> None:
        self._kind: Any = None
        self._paths: Path | Sequence[Path] | None = None
        self._names: list[Any] = []
        self._leaves: list[Any] = []
        self._positions: list[int] = []

    def find(self, batch: Any, paths: Path | Sequence[Path] | None) -> list[Tensor]:
        """The target tensors of a batch.

        Args:
            batch: What the data loader yields.
            paths: As for :func:`find_targets`.

        Raises:
            ValueError: As :func:`find_targets`.
            TypeError: As :func:`find_targets`.
        """
        held: Any = batch
        if type(batch) is dict:
            held = [*batch.values()] if [*batch] == self._names else ()
        if type(batch) is self._kind and paths == self._paths and self._are_known(held):
            return [held[position] for position in self._positions]
        targets = find_targets(batch, paths)
        self._remember(batch, targets)
        self._paths = paths
        return targets

    def _are_known(self, parts: Any) -> bool:
        if not len(parts) == len(self._leaves) == len({*map(id, parts)}):
            return False
        for part, (dtype, shape) in zip(parts, self._leaves, strict=True):
            if type(part) is not Tensor or part.dtype is not dtype or part.is_nested:
                return False
            if part.shape != shape:
                return False
        return True

    def _remember(self, batch: Any, targets: list[Tensor]) -> None:
        self._kind = None
        if type(batch) not in (tuple, list, dict):
            return
        names = [*batch] if isinstance(batch, dict) else []
        parts = [*batch.values()] if isinstance(batch, dict) else [*batch]
        places = {id(part): position for position, part in enumerate(parts)}
        found = [places[id(target)] for target in targets if id(target) in places]
        are_flat = all(type(part) is Tensor and not part.is_nested for part in parts)
        if are_flat and len(found) == len(targets):
            self._kind, self._names, self._positions = type(batch), names, found
            self._leaves = [(part.dtype, part.shape) for part in parts]

"""The settings of an engine: everything that a user decides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_mmix.core.layers import INPUT, Layers
from lightning_mmix.core.plan import Kind, Labels, Recipe
from lightning_mmix.core.trees import Path
from lightning_mmix.engine.schedule import Schedule, Scheduled

Kinds = Kind | Mapping[str, float]


@dataclass(frozen=True)
class Settings:
    """What a user decides, as :class:`~.mixer.Mixer` explains it.

    Raises:
        ValueError: If one of them is out of range.
    """

    alpha: Scheduled = 2.0
    layers: Layers = "auto"
    prob: Scheduled = 1.0
    stop: float = 1.0
    settle: float = 0.0
    kind: Kinds = "mixup"
    labels: Labels = "paired"
    target: Path | Sequence[Path] | None = None
    input: Path | None = None
    union: Path | Sequence[Path] | None = None
    seed: int | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        _ = self.schedule
        self.recipe(1.0, 1.0, self.layers if isinstance(self.layers, Mapping) else {INPUT: 1.0})
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise ValueError(f"expected a seed in [0, 2**64), but got {self.seed}")

    @property
    def schedule(self) -> Schedule:
        """When to mix, and how strongly."""
        return Schedule(self.alpha, self.prob, self.stop, self.settle)

    @property
    def kinds(self) -> list[str]:
        """The kinds of mixing that may be drawn."""
        weights = self.recipe(1.0, 1.0, {INPUT: 1.0}).kinds
        return [kind for kind, weight in weights.items() if weight > 0]

    def recipe(self, alpha: float, prob: float, layers: Mapping[str, float]) -> Recipe:
        """What plans are drawn from at some time of the training.

        Args:
            alpha: α of that time.
            prob: The probability that a batch is mixed, of that time.
            layers: The eligible layers with their weights.
        """
        return Recipe(alpha, layers, prob, self.kind, self.labels)

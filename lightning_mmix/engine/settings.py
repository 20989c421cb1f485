"""The settings of an engine: everything that a user decides."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from lightning_mmix.core.checks import shown
from lightning_mmix.core.layers import INPUT, Layers, are_names
from lightning_mmix.core.plan import Kind, Labels, Recipe
from lightning_mmix.core.trees import Path
from lightning_mmix.engine.schedule import Schedule, Scheduled

_PATH = "a key, an index or a dotted path"

Kinds = Kind | Mapping[str, float]


@dataclass(frozen=True)
class Settings:
    """What a user decides, as :class:`~.mixer.Mixer` explains it.

    Raises:
        ValueError: If one of them is out of range.
    """

    alpha: Scheduled = 1.0
    layers: Layers = "auto"
    prob: Scheduled = 1.0
    stop: float | None = None
    settle: float = 0.0
    kind: Kinds = "mixup"
    labels: Labels = "paired"
    target: Path | Sequence[Path] | None = None
    input: Path | None = None
    union: Path | Sequence[Path] | None = None
    seed: int | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        self._refuse("layers", "'auto', a list of names, or a mapping of names to weights", _named)
        self._refuse("target", f"{_PATH}, or a list of such", _several)
        self._refuse("union", f"{_PATH}, or a list of such", _several)
        self._refuse("input", _PATH, _is_path)
        self._refuse("seed", "a whole number in [0, 2**64)", _is_seed)
        _ = self.schedule
        self.recipe(1.0, 1.0, self.layers if isinstance(self.layers, Mapping) else {INPUT: 1.0})
        if self.union is not None and "cutmix" in self.kinds:
            raise ValueError(
                "union is for interpolation, but got kind='cutmix', which takes each position from "
                "one of the two; leave the one or the other out"
            )

    def _refuse(self, name: str, expected: str, fits: Callable[[Any], bool]) -> None:
        value = getattr(self, name)
        if not fits(value) and not (value is None and name != "layers"):
            hint = f"; write [{value!r}]" if name == "layers" and isinstance(value, str) else ""
            raise ValueError(f"expected {expected} as {name}, but got {shown(value)}{hint}")

    def refuse_pair(self) -> None:
        """Refuse to look into (input, target), as ``mixer(x, y)`` has it, if a batch is described.

        Raises:
            ValueError: If a place is none of these two.
        """
        for name in ("target", "input", "union"):
            asked = getattr(self, name)
            for path in [asked] if _is_path(asked) else asked or ():
                if str(path).partition(".")[0] not in ("0", "1", "-1", "-2"):
                    raise ValueError(
                        f"{name}={path!r} is a place in a whole batch, mixer(batch), but got the "
                        "target apart, mixer(x, y); give the batch, or leave the place out"
                    )

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


def _named(layers: Any) -> bool:
    return layers == "auto" if isinstance(layers, str) else are_names(layers)


def _several(paths: Any) -> bool:
    is_listed = isinstance(paths, Sequence) and not isinstance(paths, str)
    return bool(paths) and all(map(_is_path, paths)) if is_listed else _is_path(paths)


def _is_path(path: Any) -> bool:
    return isinstance(path, str | int) and not isinstance(path, bool)


def _is_seed(seed: Any) -> bool:
    return isinstance(seed, Integral) and 0 <= int(seed) < 2**64

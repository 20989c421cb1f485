"""The plan of a step: which layer is mixed, with what weight, and who is whose partner."""

import math
import threading
from bisect import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

_LAYER_STREAM, _BATCH_STREAM = 0, 1
_TAKEN_ALONG = 2**16  # bytes


@dataclass(frozen=True, eq=False)
class MixPlan:
    """One mixing: ``hidden`` of ``layer`` becomes ``lam * hidden + (1 - lam) * hidden[partner]``.

    Attributes:
        layer: The name of the mixed layer, or ``"input"``.
        lam: 0-d, in [0, 1]: the weight λ of the sample itself.
        partner: Shape (B,), int64: a permutation of ``range(B)``.
    """

    layer: str
    lam: Tensor
    partner: Tensor

    def to(self, device: torch.device) -> "MixPlan":
        """The plan with its partners on ``device``, sent without waiting; λ stays on the CPU."""
        if self.partner.device == device:
            return self
        partner = self.partner
        # CUDA takes small memory along with the call; larger it reads later, if it is pinned
        if device.type == "cuda" and partner.nbytes > _TAKEN_ALONG:
            partner = partner.pin_memory()
        return MixPlan(self.layer, self.lam, partner.to(device, non_blocking=True))


@dataclass(frozen=True)
class Recipe:
    """What plans are drawn from: λ ~ Beta(``alpha``, ``alpha``) and the eligible set S.

    Attributes:
        alpha: The strength of the mixing, finite and ≥ 0; 0 means no mixing.
        layers: The weight of each layer of S, finite and ≥ 0, not all of them 0.

    Raises:
        ValueError: If ``alpha`` or a weight is out of range.
    """

    alpha: float
    layers: Mapping[str, float]

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf:
            raise ValueError(f"expected a finite alpha ≥ 0, but got {self.alpha}")
        for name, weight in self.layers.items():
            if not 0 <= weight < math.inf:
                raise ValueError(f"expected a finite weight ≥ 0 for {name!r}, but got {weight}")
        if not any(self.layers.values()):
            raise ValueError(f"expected a layer with a weight > 0, but got {dict(self.layers)}")


def draw(
    recipe: Recipe, batch_size: int, *, seed: int, epoch: int = 0, batch_idx: int = 0, rank: int = 0
) -> MixPlan | None:
    """Draw the plan of a batch: a pure function of its arguments (Verma et al., 2019, section 2).

    The layer comes from a stream that all ranks share, λ and the partners from the rank's own.
    λ is drawn in float64 and folded to max(λ, 1 - λ): with a random partner the mixed batches of
    (λ, π) and of (1 - λ, π⁻¹) are the same set, so the training loss keeps its distribution, and
    the sample itself stays the dominant one. No global generator is read or changed.

    Args:
        recipe: α and the eligible layers with their weights.
        batch_size: B, the number of samples of this rank's batch.
        seed: In [0, 2⁶⁴).
        epoch: The epoch, ≥ 0.
        batch_idx: The batch within the epoch, ≥ 0.
        rank: The process, ≥ 0.

    Returns:
        The plan, or None where there is nothing to mix: α = 0 or fewer than two samples.

    Example:
        >>> plan = draw(Recipe(2.0, {"input": 1, "net.layer1": 1}), 4, seed=7)
        >>> plan.layer, plan.partner.tolist(), 0.5 <= plan.lam <= 1
        ('net.layer1', [1, 3, 2, 0], tensor(True))
    """
    if recipe.alpha == 0 or batch_size < 2:
        return None
    uniform = _STREAMS.at(seed, _LAYER_STREAM, (0, batch_idx, epoch)).random()
    own = _STREAMS.at(seed, _BATCH_STREAM, (rank, batch_idx, epoch))
    lam = own.beta(recipe.alpha, recipe.alpha)
    return MixPlan(
        layer=_choose(recipe.layers, uniform),
        lam=torch.from_numpy(np.array(max(lam, 1 - lam))),
        partner=torch.from_numpy(own.permutation(batch_size)),
    )


class _Streams(threading.local):
    """One generator a thread: to set its state takes a tenth of the time of making another."""

    def __init__(self) -> None:
        # with a seed, since it would gather entropy otherwise
        self._generator = np.random.Generator(np.random.Philox(0))

    def at(self, seed: int, purpose: int, counter: tuple[int, int, int]) -> np.random.Generator:
        """The generator at the start of a stream; it is there only until the next one is asked."""
        # the lowest word of the counter counts the numbers of the stream itself
        state = {"key": (seed, purpose), "counter": (0, *counter)}
        self._generator.bit_generator.state = {**_AT_START, "state": state}
        return self._generator


_AT_START = {
    "bit_generator": "Philox",
    "buffer": (0, 0, 0, 0),
    "buffer_pos": 4,
    "has_uint32": 0,
    "uinteger": 0,
}
_STREAMS = _Streams()


def _choose(layers: Mapping[str, float], uniform: float) -> str:
    eligible = [name for name, weight in layers.items() if weight > 0]
    bounds = list(accumulate(layers[name] for name in eligible))
    return eligible[bisect(bounds, uniform * bounds[-1], hi=len(bounds) - 1)]

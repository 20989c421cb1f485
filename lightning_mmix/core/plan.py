"""The plan of a step: which layer is mixed, how and with what weight, and who is whose partner."""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from lightning_mmix.core.checks import refuse_unknown, refuse_weights, shown
from lightning_mmix.core.layers import Named, Shares, weighed
from lightning_mmix.core.paste import Region, Space, region

Kind = Literal["mixup", "cutmix"]
Labels = Literal["paired", "own"]

_LAYER_STREAM, _BATCH_STREAM, _COIN_STREAM, _KIND_STREAM = range(4)
_TAKEN_ALONG = 2**16  # bytes


@dataclass(frozen=True, eq=False)
class MixPlan:
    """One mixing: ``hidden`` of ``layer`` becomes ``lam * hidden + (1 - lam) * hidden[partner]``.

    With a ``box`` it is CutMix (Yun et al., 2019), which pastes the partner's positions in a box.

    Attributes:
        layer: The name of the mixed layer, or ``"input"``.
        lam: λ, 0-d, in [0, 1]: the weight of the sample itself. Of a box it is nominal as long as
            there is no ``region``. Of shape (B,), one for each sample, if the loss is that of the
            sample's own label.
        partner: π, shape (B,), int64: a permutation of ``range(B)``.
        box: Shape (3,), float64, in [0, 1): where the centre of the box lies, relative to the
            size, in up to three dimensions of space; None for an interpolation.
        region: The box in whole positions, of which λ is the real one, once the layer has run.

    Example:
        >>> plan = MixPlan("net.layer1", lam=torch.tensor(0.75), partner=torch.tensor([1, 0]))
        >>> plan.kind, plan.labels
        ('mixup', 'paired')
    """

    layer: str
    lam: Tensor
    partner: Tensor
    box: Tensor | None = None
    region: Region | None = None

    @property
    def kind(self) -> Kind:
        """Whether samples are interpolated (``"mixup"``) or pasted (``"cutmix"``)."""
        return "mixup" if self.box is None else "cutmix"

    @property
    def labels(self) -> Labels:
        """Whether the loss takes both labels (``"paired"``) or the sample's ``"own"`` alone."""
        return "own" if self.lam.dim() else "paired"

    def at(
        self, space: Space, input_space: Space | None = None, *, is_lent: bool = False
    ) -> "MixPlan":
        """The plan with its box in whole positions of a space, and the real λ of it."""
        found = replace(self.region_in(space), input_space=input_space, is_lent=is_lent)
        lam = torch.tensor(found.lam, dtype=torch.float64, device="cpu")
        return replace(self, lam=lam, region=found)

    def region_in(self, space: Space) -> Region:
        """The box in whole positions of a space of these sizes."""
        if self.box is None:
            raise ValueError("expected a plan with a box, but got one of mixup")
        return region(self.nominal, self.box.tolist(), space)

    @property
    def nominal(self) -> float:
        """The λ that was drawn, also once a box has a real one."""
        return float(self.lam) if self.region is None else self.region.nominal

    def to(self, device: torch.device) -> "MixPlan":
        """The plan with what has a row for each sample on ``device``, sent without waiting.

        One λ and the box stay on the CPU, where they are read.
        """
        if self.partner.device == device:
            return self
        lam = self.lam
        if self.labels == "own":
            lam = _sent(lam.float() if device.type == "mps" else lam, device)  # it has no float64
        return replace(self, lam=lam, partner=_sent(self.partner, device))


@dataclass(frozen=True)
class Recipe:
    """What plans are drawn from: λ ~ Beta(``alpha``, ``alpha``) and the eligible set S.

    Attributes:
        alpha: The strength of the mixing, finite and ≥ 0; 0 means no mixing.
        layers: The names of S, or the weight of each, finite and ≥ 0, not all of them 0.
        prob: The share of the batches that are mixed, in [0, 1].
        kind: ``"mixup"``, ``"cutmix"``, or the weight of each, finite and ≥ 0, not both 0.
        labels: ``"paired"``: the loss takes both labels, with the weights of the mix. ``"own"``:
            it takes the sample's own, and λ ~ Beta(``alpha`` + 1, ``alpha``), for each sample.

    Raises:
        ValueError: If one of them is out of range or unknown, or own labels meet CutMix.
        TypeError: If ``kind`` is a list, without weights.

    Example:
        >>> Recipe(2.0, ["input", "net.layer1"], prob=0.5).weights
        {'input': 1.0, 'net.layer1': 1.0}
    """

    alpha: float
    layers: Named
    prob: float = 1.0
    kind: Kind | Mapping[str, float] = "mixup"
    labels: Labels = "paired"

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf:
            raise ValueError(f"expected a finite alpha ≥ 0, but got {self.alpha}")
        if not 0 <= self.prob <= 1:
            raise ValueError(f"expected prob in [0, 1], but got {self.prob}")
        if not isinstance(self.kind, str | Mapping):
            raise TypeError(
                f"expected one kind, or kind={{'mixup': 1, 'cutmix': 1}} with the weight of each, "
                f"but got {shown(self.kind)}"
            )
        for name in self.kinds:
            refuse_unknown("kind", name, get_args(Kind))
        refuse_unknown("labels", self.labels, get_args(Labels))
        refuse_weights("layer", self.weights)
        refuse_weights("kind", self.kinds)
        if self.labels == "own" and self.kinds.get("cutmix", 0) > 0:
            raise ValueError(
                "labels='own' has the right expectation for interpolation alone, but got "
                f"kind={self.kind!r}; use kind='mixup' or labels='paired'"
            )

    @cached_property
    def weights(self) -> Mapping[str, float]:
        """The weight of each layer."""
        return weighed(self.layers)

    @cached_property
    def kinds(self) -> Mapping[str, float]:
        """The weight of each kind of mixing."""
        return self.kind if isinstance(self.kind, Mapping) else {str(self.kind): 1.0}

    @cached_property
    def _bounds(self) -> tuple[Shares, Shares]:
        return Shares(self.kinds), Shares(self.weights)


def draw(
    recipe: Recipe, batch_size: int, *, seed: int, epoch: int = 0, batch_idx: int = 0, rank: int = 0
) -> MixPlan | None:
    """Draw the plan of a batch: a pure function of its arguments (Verma et al., 2019, section 2).

    Whether to mix, the kind and the layer come each from a stream that all ranks share, λ, the
    partners and the box from the rank's own. No global generator is read or changed.

    λ is drawn in float64 and folded to max(λ, 1 - λ): with a random partner the mixed batches of
    (λ, π) and of (1 - λ, π⁻¹) are the same set, so the training loss keeps its distribution, and
    the sample itself stays the dominant one. For CutMix λ stays as it was drawn, and a
    box that covers more than half keeps the sample's own values instead, which is the same fold;
    its centre is uniform.

    **Own labels.** A loss that is a sum over samples, Σ L(f_i, y_i), has with both labels the mean
    E[λ·Σ L(f_i, y_i)] + E[(1 - λ)·Σ L(f_i, y_π(i))]. In the second term exchange the names of
    sample and partner, (λ, π) → (1 - λ, π⁻¹), which has the same distribution and makes the mixed
    state of each the other's: it is E[λ·Σ L(f_i, y_i)] again. So the mean is E[2λ·Σ L(f_i, y_i)],
    and 2λ times the density of Beta(α, α) is that of Beta(α + 1, α), from which λ then comes: one
    for each sample, since each term of the sum looks at its own alone, and not folded. Batch
    normalisation looks at the others, too, so that with it the means differ in small batches.

    Args:
        recipe: α, the eligible layers with their weights, how often, and which kinds and labels.
        batch_size: B, the number of samples of this rank's batch.
        seed: In [0, 2⁶⁴).
        epoch: The epoch, ≥ 0.
        batch_idx: The batch within the epoch, ≥ 0.
        rank: The process, ≥ 0.

    Returns:
        The plan, or None where there is nothing to mix: α = 0, fewer than two samples, or a batch
        that is left alone by ``prob``.

    Example:
        >>> plan = draw(Recipe(2.0, {"input": 1, "net.layer1": 1}), 4, seed=7)
        >>> plan.layer, plan.partner.tolist(), 0.5 <= plan.lam <= 1
        ('net.layer1', [1, 3, 2, 0], tensor(True))
    """
    if recipe.alpha == 0 or batch_size < 2:
        return None
    shared = (0, batch_idx, epoch)
    if recipe.prob < 1 and _STREAMS.at(seed, _COIN_STREAM, shared).random() >= recipe.prob:
        return None
    kinds, layers = recipe._bounds
    kind = kinds.only or kinds.at(_STREAMS.at(seed, _KIND_STREAM, shared).random())
    layer = layers.only or layers.at(_STREAMS.at(seed, _LAYER_STREAM, shared).random())
    own = _STREAMS.at(seed, _BATCH_STREAM, (rank, batch_idx, epoch))
    lam = _draw_lam(own, recipe, batch_size, is_folded=kind == "mixup")
    partner = torch.from_numpy(own.permutation(batch_size))
    box = torch.from_numpy(own.random(3)) if kind == "cutmix" else None
    return MixPlan(layer, lam, partner, box)


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


def _draw_lam(
    own: np.random.Generator, recipe: Recipe, batch_size: int, *, is_folded: bool
) -> Tensor:
    if recipe.labels == "own":
        return torch.from_numpy(own.beta(recipe.alpha + 1, recipe.alpha, batch_size))
    lam = own.beta(recipe.alpha, recipe.alpha)
    return torch.from_numpy(np.array(max(lam, 1 - lam) if is_folded else lam))


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    # CUDA takes small memory along with the call; larger it reads later, if it is pinned
    if device.type == "cuda" and tensor.nbytes > _TAKEN_ALONG:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)

"""Sites: the layers of a network as places to mix, and the choice among those that are cuts."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from torch import Tensor

from lightning_mmix.core.layers import INPUT

NOT_FIRST = "is not batch-first"
TURN_BATCH = (
    "transpose the batch in on_after_batch_transfer, targets that have time first as well, and "
    "have the network take it so (batch_first=True)"
)
_TURN = "give the network the batch first (batch_first=True, or transpose in a module of its own)"
_AS_BOOL = "floating-point entries count as signal, and a mask that is given as bool does not"


@dataclass(frozen=True)
class Why:
    """Why a layer can't be mixed.

    Attributes:
        reason: What goes with the layer's name: "is bypassed".
        advice: What helps, if it is known.
    """

    reason: str
    advice: str = ""


@dataclass(frozen=True)
class Site:
    """A layer of a network, or its input, as a place to mix.

    Attributes:
        name: The layer's name, or ``"input"``.
        kind: The name of its class.
        shape: Of its hidden state, without the batch; None if it has no hidden state.
        depth: The share of a forward pass's floating-point operations that are done when it ends,
            in [0, 1]; None if it never runs.
        is_cut: Whether all of the signal passes through it; None if that can't be told.
        reason: Why it is no cut, or can't be told: "is bypassed". Empty if it is one.
        advice: What helps, if it is known.

    Example:
        >>> site = Site("block.conv", "Conv2d", (8, 4, 4), 0.5, is_cut=False, reason="is bypassed")
        >>> site.has_space, site.outcome
        (True, "it can't be mixed exactly")
    """

    name: str
    kind: str
    shape: tuple[int, ...] | None = None
    depth: float | None = None
    is_cut: bool | None = True
    reason: str = ""
    advice: str = ""

    @property
    def has_space(self) -> bool:
        """Whether its hidden state has several positions, besides samples and channels."""
        shape = self.shape or ()
        return len(shape) == 2 or (len(shape) > 2 and any(size > 1 for size in shape[1:]))

    @property
    def outcome(self) -> str:
        """What comes of mixing it if it is no cut, in words."""
        return "nothing would be mixed there" if self.depth is None else "it can't be mixed exactly"

    @property
    def untested(self) -> str:
        """When it may be mixed without a test, for a reason that a training step may not share."""
        if self.depth is None:
            return "verify=False is for one that the training step runs"
        is_inexact = self.reason.startswith(("is bypassed", "runs", "is not used", "is the same"))
        return "verify=False turns this test off" if is_inexact else ""

    def refused(self, why: Why) -> "Site":
        """The same place, which is no cut."""
        return replace(self, is_cut=False, reason=why.reason, advice=why.advice)


@dataclass(frozen=True)
class Cuts:
    """What a cut test found.

    Attributes:
        sites: The input and all layers by name, in the order of the forward pass.
        forwards: How many forward passes it took.
        seconds: How long it took.

    Example:
        >>> import torch
        >>> from lightning_mmix.cuts import cut_test
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU())
        >>> cuts = cut_test(model, torch.randn(5, 4))
        >>> [name for name, site in cuts.sites.items() if site.is_cut]
        ['input', '0', '1']
    """

    sites: Mapping[str, Site]
    forwards: int
    seconds: float


def not_first(shape: Sequence[int], size: int) -> Why:
    """Why a tensor of this shape does not hold a row for each of ``size`` samples."""
    if not shape:
        return Why("puts out one number for all samples")
    times, others = divmod(shape[0], size)
    if shape[1:2] != (size,) and times > 1 and not others:
        return Why(f"puts out {times} rows for each sample")
    return Why(
        f"{NOT_FIRST}: {tuple(shape)} of {size} samples", _TURN if shape[1:2] == (size,) else ""
    )


def unequal_rows(sites: Mapping[str, Site]) -> str:
    """How many rows input and target have, where none that runs has as many as the target.

    Args:
        sites: The input and all layers, by name.

    Returns:
        In words; empty if some layer has as many, or another dimension of the input is as long.
    """
    first, ran = sites[INPUT], [site for site in sites.values() if site.depth is not None]
    if first.advice or not all(site.reason.startswith(NOT_FIRST) for site in ran):
        return ""
    rows, *_, size = re.findall(r"\d+", first.reason)
    return f"the input has {rows} rows, and the target {size}"


def by_entry(entry: str, tensor: Tensor) -> Why:
    """Why a layer can't be mixed past which an entry of the batch goes."""
    if not entry:  # the batch is all one
        return Why("is bypassed")
    is_mask = bool(((tensor == 0) | (tensor == 1)).all())
    return Why(f"is bypassed by entry {entry!r} of the batch", _AS_BOOL if is_mask else "")


def choose(sites: Mapping[str, Site]) -> list[str]:
    """The layers that ``"auto"`` takes: those of Verma et al. (2019), on any network.

    The input, or where that can't be mixed the outermost of the first cuts, an embedding's output;
    the cut nearest to half of the depth; and, of those before it, the one nearest to a quarter.
    Stages go before blocks, and blocks before their parts: names have as few parts as it takes to
    find two depths, or else one, of at most 0.8, the larger at least 0.2. Of cuts at one depth the
    shortest name wins, and then the last to run, which has the activation behind it.

    Args:
        sites: By name, in the order of the forward pass; what can't be told counts as a cut.

    Returns:
        One to three names, in the order of the forward pass; none if there is no cut.
    """
    cuts = [site for site in sites.values() if site.is_cut is not False and _depth(site) < 1]
    inner = [site for site in cuts if _depth(site) > 0]
    half = _nearest([site for site in inner if _dots(site) <= _level(inner)], 0.5)
    before = [site for site in inner if half and _depth(site) < _depth(half)]
    quarter = _nearest([site for site in before if half and _dots(site) <= _dots(half)], 0.25)
    first = next((site for site in cuts if site.name == INPUT), None) or _nearest(cuts, 0)
    return [name for name, site in sites.items() if site in (first, quarter, half)]


def neighbours(sites: Mapping[str, Site], name: str) -> list[str]:
    """The names of the cuts that may be meant instead of a layer.

    They are the ones just before and after it; of the input the one that :func:`choose` takes in
    its place; of a layer that never runs those within it, or else the ones of the most similar
    names. What ends with the network, as its last layer and the whole of it do, is not among them.
    """
    names = list(sites)
    cuts = [each for each in names if sites[each].is_cut and _depth(sites[each]) < 1]
    if sites[name].depth is None:
        inside = [each for each in cuts if _is_in(each, name)]
        layers = [each for each in cuts if each != INPUT]
        return inside[:3] or get_close_matches(name, layers, 2, 0) or cuts
    if name == INPUT:
        first = _nearest([sites[each] for each in cuts], 0)
        return [] if first is None else [first.name]
    place = names.index(name)
    before = [each for each in cuts if names.index(each) < place]
    return before[-1:] + [each for each in cuts if names.index(each) > place][:1]


def nearest_cuts(sites: Mapping[str, Site], name: str) -> str:
    """The names of these :func:`neighbours`, in words."""
    cuts, names = neighbours(sites, name), list(sites)
    if not cuts:
        return "there is none to mix before or after it"
    listed = " or ".join(map(repr, cuts))
    if _is_in(cuts[0], name):
        return f"of what it holds, {listed} can be mixed"
    if sites[name].depth is None:
        return f"name one that does, as {listed}"
    if len(cuts) == 2:
        return f"mix {cuts[0]!r} before or {cuts[1]!r} after it instead"
    where = "before" if names.index(cuts[0]) < names.index(name) else "after"
    return f"mix {cuts[0]!r} {where} it instead"


def _nearest(sites: Sequence[Site], depth: float) -> Site | None:
    def distance(site: Site) -> tuple[float, int]:
        return abs(_depth(site) - depth), _dots(site)

    return min(reversed(sites), key=distance, default=None)


def _level(sites: Sequence[Site]) -> float:
    """How many dots the names of the chosen layers may have."""
    for wanted in (2, 1):
        for dots in sorted(map(_dots, sites)):
            depths = {_depth(s) for s in sites if _dots(s) <= dots and _depth(s) <= 0.8}
            if len(depths) >= wanted and max(depths) >= 0.2:
                return dots
    return math.inf


def _depth(site: Site) -> float:
    return 1.0 if site.depth is None else site.depth  # of what never runs


def _dots(site: Site) -> int:
    return site.name.count(".")


def _is_in(name: str, container: str) -> bool:
    return name.startswith(f"{container}.")

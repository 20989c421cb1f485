"""Sites: the layers of a network as places to mix, and the choice among those that are cuts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_mmix.core.layers import INPUT


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
    """

    name: str
    kind: str
    shape: tuple[int, ...] | None = None
    depth: float | None = None
    is_cut: bool | None = True
    reason: str = ""


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
    """The names of the cuts just before and after a layer."""
    names = list(sites)
    place = names.index(name)
    before = [n for n in names[:place] if sites[n].is_cut][-1:]
    return before + [n for n in names[place + 1 :] if sites[n].is_cut][:1]


def nearest_cuts(sites: Mapping[str, Site], name: str) -> str:
    """The cuts just before and after a layer, in words."""
    cuts, names = neighbours(sites, name), list(sites)
    if len(cuts) == 2:
        return f"the nearest cuts are {cuts[0]!r} before and {cuts[1]!r} after it"
    if not cuts:
        return "there is no cut before or after it"
    where = "before" if names.index(cuts[0]) < names.index(name) else "after"
    return f"the nearest cut is {cuts[0]!r} {where} it"


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

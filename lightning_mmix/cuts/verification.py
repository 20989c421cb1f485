"""The verification of layers: which ones a probe shows to be cuts of the network."""

import warnings
from collections.abc import Collection

from lightning_mmix.core.layers import INPUT
from lightning_mmix.cuts.probe import Probe
from lightning_mmix.cuts.sites import Site, choose, nearest_cuts, neighbours


def chosen_automatically(probe: Probe, *, input_mixes: bool = True) -> list[str]:
    """Choose layers as the paper does, by :func:`lightning_mmix.cuts.sites.choose`.

    Args:
        probe: Of the network.
        input_mixes: Whether the input of its batches can be mixed.

    Raises:
        ValueError: If the network has no cut.
    """
    refused = set() if input_mixes else {INPUT}
    while names := choose({n: site for n, site in probe.sites.items() if n not in refused}):
        probe.confirm(names)
        # what can't be told is not chosen, either
        unsure = {name for name in names if not probe.sites[name].is_cut}
        if not unsure:
            return names
        refused |= unsure
    raise ValueError(
        'layers="auto" found no layer through which all of the signal passes; '
        "`lightning-mmix layers` shows why; name layers and set verify=False to mix nevertheless"
    )


def verified(probe: Probe, names: Collection[str]) -> dict[str, Site]:
    """Test layers that were named.

    Args:
        probe: Of the network.
        names: Of layers and the input.

    Returns:
        What was found out about them, in the order of the forward pass.

    Raises:
        ValueError: If one of them is no cut.
    """
    probe.confirm(names)
    sites = {name: site for name, site in probe.sites.items() if name in names}
    for site in sites.values():
        if site.is_cut is False:
            while not probe.confirm(neighbours(probe.sites, site.name)):
                pass  # what is suggested has to hold
            raise _no_cut(site, nearest_cuts(probe.sites, site.name))
    unsure = [name for name, site in sites.items() if site.is_cut is None]
    if unsure:
        listed = ", ".join(map(repr, unsure))
        warnings.warn(f"neither graph nor values show if {listed} can be mixed", stacklevel=2)
    return sites


def _no_cut(site: Site, cuts: str) -> ValueError:
    return ValueError(
        f"layer {site.name!r} {site.reason}, so it is no cut of the network and can't be mixed "
        f"exactly; {cuts}; verify=False turns this test off"
    )

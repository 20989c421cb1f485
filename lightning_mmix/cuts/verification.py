"""The verification of layers: which ones a probe shows to be cuts of the network."""

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import nn

from lightning_mmix.core.layers import INPUT
from lightning_mmix.core.trees import tensors
from lightning_mmix.cuts.probe import ROWS, Inputs, Probe
from lightning_mmix.cuts.rows import few_rows
from lightning_mmix.cuts.sites import Site, choose, nearest_cuts, neighbours


@dataclass(frozen=True)
class Cuts:
    """What a cut test found.

    Attributes:
        sites: The input and all layers by name, in the order of the forward pass.
        forwards: How many forward passes it took.
        seconds: How long it took.
    """

    sites: Mapping[str, Site]
    forwards: int
    seconds: float


def cut_test(model: nn.Module, inputs: Inputs) -> Cuts:
    """Find the layers of a network that may be mixed: its cuts.

    A layer is a cut if all of the signal that reaches the output passes through it. One forward
    pass in evaluation mode is recorded: a layer is a cut if no path of its autograd graph leads
    from the output to the input past the layer's output. Where the graph shows nothing, as under
    ``no_grad``, the layer's output is exchanged between the rows: of a cut the network's output
    is exchanged in the same way. Where the graph is blind to some layer, all cuts are tested
    so, too; the cautious verdict counts.

    A layer's rows have to be those of the batch. So a pass is made with the inputs moved on by one
    row: a layer that does not follow, though the network's output does, has its rows in another
    order, as behind a sort by length, or is not batch-first. Rows of equal length, and noise, do
    not tell.

    The signal is what is floating point, or looked up in an embedding and different between the
    rows. Other integers and booleans, such as masks and lengths, are no signal. What runs in
    training only, such as an auxiliary head, is not seen. The model, its gradients and the global
    random number generators are left as they were.

    Args:
        model: Any module.
        inputs: Two or more samples: a tensor, a tuple of arguments or a mapping of keyword
            arguments, the batch first. Five are used, of different lengths if there are some.

    Returns:
        Every layer's verdict, with the shape of its hidden state and its depth.

    Raises:
        ValueError: If there are not two samples.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> sites = cut_test(model, torch.randn(5, 4)).sites
        >>> sites["1"].is_cut, sites["1"].shape, round(sites["1"].depth, 2)
        (True, (8,), 0.57)
    """
    size = next((len(tensor) for tensor in tensors(inputs) if tensor.dim()), 0)
    probe = Probe(model, few_rows(inputs, size, ROWS), size=min(size, ROWS))
    probe.settle()
    return Cuts(probe.sites, probe.forwards, probe.seconds)


def chosen_automatically(probe: Probe, *, input_mixes: bool = True) -> list[str]:
    """Choose layers as the paper does, by :func:`~.sites.choose`.

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

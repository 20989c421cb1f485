"""The verification of layers: which ones a probe shows to be cuts of the network."""

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from torch import Tensor, nn

from lightning_mmix.core.checks import first_line
from lightning_mmix.core.layers import INPUT
from lightning_mmix.core.trees import Path, describe, tensors
from lightning_mmix.cuts.calls import ROWS, Call, Inputs, NoForwardError, calls
from lightning_mmix.cuts.probe import Probe
from lightning_mmix.cuts.rows import few_rows
from lightning_mmix.cuts.sites import (
    NOT_FIRST,
    TURN_BATCH,
    Cuts,
    Site,
    choose,
    nearest_cuts,
    neighbours,
    unequal_rows,
)

_OF_TARGET = "depends on the target"
_ADVICE = {
    _OF_TARGET: (
        "say which entry is the target, target=<key, index or path>; if it is the network's input "
        "as well, make them two entries in on_after_batch_transfer, the target a .clone(); else "
        "use ManifoldMixupMixin or mixed_loss"
    ),
    "is not shown": (
        "name layers, or convert the input to floating point in on_after_batch_transfer"
    ),
    "puts out": "call the network for each of the views or domains",
    NOT_FIRST: (
        "has the target a row for each sample? Boxes, and sequences laid end to end, are to be "
        "padded to (B, ...)"
    ),
}


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

    The signal is what is floating point, looked up in an embedding and different between the rows,
    or an image of bytes that is converted. Other integers and booleans, such as masks and lengths,
    are no signal. What runs in training only, such as an auxiliary head, is not seen. The model,
    its gradients and the global random number generators are left as they were.

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


def probe_on(
    module: nn.Module, batch: Any, targets: Sequence[Tensor], path: Path | None = None
) -> Probe:
    """Probe a module's forward pass on a few samples of a batch.

    The inputs are what the forward's signature asks for: entries of a mapping by name, entries of
    a tuple in order, the recognised input, or the batch as a whole; targets where an argument has
    their name. A module of which no forward pass takes the batch is probed at its one child, if
    that holds all parameters.

    Args:
        module: Any module.
        batch: What the data loader yields.
        targets: The batch's targets, of two or more samples.
        path: Where the batch holds its input; None looks by itself.

    Returns:
        A probe that has recorded one forward pass.

    Raises:
        NoForwardError: If no forward pass takes the batch.
    """
    problems: list[Exception] = []
    for _, some in groupby(calls(module, batch, targets, path), lambda call: id(call.network)):
        probe = probed(module, some, problems)
        if probe is not None:
            return probe
    told = [error for error in problems if not _is_missing(error)]
    problem = (
        f"can't be tested with the batch, {describe(batch)} ({first_line(told[0])})" if told else ""
    )
    name = type(module).__name__
    if len(told) == len(problems):
        raise NoForwardError(f"the forward pass of {name} {problem}")
    child = f", and that of its child {problem}" if told else ""
    raise NoForwardError(f"{name} has no forward{child}")


def probed(module: nn.Module, some: Iterable[Call], problems: list[Exception]) -> Probe | None:
    """A probe of the first of some calls of which an output has the batch first.

    Args:
        module: Whose layers are named.
        some: The calls.
        problems: Gets what those raise that can't be made.

    Returns:
        The probe; if none is so, that of the first call that can be made, or else None.
    """
    unsure: Probe | None = None
    for each in some:
        made, origins = each.network, each.origins
        try:
            probe = Probe(module, each.inputs, size=each.size, network=made, origins=origins)
        except Exception as error:  # what it is asked to take may not fit
            problems.append(error)
            continue
        if probe.is_batched:
            return probe
        unsure = unsure or probe
    return unsure


def chosen_automatically(probe: Probe, refused: Collection[str] = ()) -> list[str]:
    """Choose layers as the paper does: the input, and cuts about a quarter and half of the way.

    Each is tested by value before it is taken.

    Args:
        probe: Of the network.
        refused: The names of those, or the input, that can't be mixed for another reason.

    Returns:
        One to three names, in the order of the forward pass.

    Raises:
        ValueError: If the network has no other cut.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
        >>> chosen_automatically(Probe(model, torch.randn(5, 8), size=5))
        ['input', '0', '1']
    """
    left_out = set(refused)
    while names := choose({n: site for n, site in probe.sites.items() if n not in left_out}):
        probe.confirm(names)
        # what can't be told is not chosen, either
        unsure = {name for name in names if not probe.sites[name].is_cut}
        if not unsure:
            return names
        left_out |= unsure
    raise ValueError(f'layers="auto" found no layer {_why_no_layer(probe.sites)}')


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
            raise _no_cut(site, probe.sites)
    unsure = [name for name, site in sites.items() if site.is_cut is None]
    if unsure:
        listed = ", ".join(map(repr, unsure))
        warnings.warn(
            f"it can't be told if all of the signal passes through {listed} (does forward use "
            "detach() or no_grad?); name another layer, or hide this warning by verify=False",
            stacklevel=2,
        )
    return sites


def _no_cut(site: Site, sites: Mapping[str, Site]) -> ValueError:
    is_dead_end = site.reason.startswith(_OF_TARGET) and not neighbours(sites, site.name)
    advice = _advice(site.reason) if is_dead_end else site.advice
    if unequal := unequal_rows(sites):
        return ValueError(f"layer {site.name!r} can't be mixed: {unequal}; {_ADVICE[NOT_FIRST]}")
    clauses = filter(None, [advice, nearest_cuts(sites, site.name), site.untested])
    return ValueError(f"layer {site.name!r} {site.reason}, so {site.outcome}; {'; '.join(clauses)}")


def _why_no_layer(sites: Mapping[str, Site]) -> str:
    """The reason that all layers share, or that there is none."""
    first = sites[INPUT]
    if first.advice and first.reason.startswith(NOT_FIRST):
        return f"to mix, since the input {first.reason}; {TURN_BATCH}"
    if unequal := unequal_rows(sites):
        return f"to mix, since {unequal}; {_ADVICE[NOT_FIRST]}"
    # what ends with the network would not be taken
    inner = [site for site in sites.values() if site.name != INPUT and (site.depth or 0) < 1]
    shared = {site.reason.partition(":")[0] for site in inner if site.depth is not None}
    if len(shared) == 1 and shared.isdisjoint({"", "is bypassed"}):
        reason = shared.pop()
        advice = max(site.advice for site in inner) or _advice(reason)
        return f"to mix, since each {reason}; {advice}"
    return "through which all of the signal passes; `lightning-mmix layers` shows why of each"


def _advice(reason: str) -> str:
    """What may help where all layers share a reason."""
    known = (each for start, each in _ADVICE.items() if reason.startswith(start))
    return next(known, "`lightning-mmix layers` shows them")


def _is_missing(error: Exception) -> bool:
    """Whether a module has no forward at all, as torch tells."""
    is_told = isinstance(error, NotImplementedError) and 'required "forward"' in str(error)
    return is_told or "_forward_unimplemented" in str(error)

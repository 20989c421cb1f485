"""The choice of the eligible layers: by themselves or by name, and verified."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from lightning_mmix.batches.roles import (
    find_mixable_input,
    find_targets,
    recognised_input,
    written,
)
from lightning_mmix.core.layers import INPUT, Layers, examples, named_layers, select
from lightning_mmix.core.trees import Path, are_alike, places, siblings
from lightning_mmix.cuts.calls import NoForwardError
from lightning_mmix.cuts.probe import Probe
from lightning_mmix.cuts.sites import Site
from lightning_mmix.cuts.verification import chosen_automatically, verified
from lightning_mmix.engine.boxes import positions_of_masks, refuse_without_boxes, without_boxes
from lightning_mmix.engine.host import Host
from lightning_mmix.engine.settings import Settings

_METRICS = (Metric, MetricCollection)


@dataclass(frozen=True)
class Choice:
    """The eligible layers of a model.

    Attributes:
        asked: What was asked for, in plain containers.
        weights: The weight of each layer, in the model's order, which all processes share.
        sites: What was found out about them; empty if they were not verified.
    """

    asked: str | list[str] | dict[str, float]
    weights: Mapping[str, float]
    sites: Mapping[str, Site]

    @property
    def names(self) -> list[str]:
        """The layers, in the order of the forward pass if that is known."""
        return list(self.sites or self.weights)

    def fits(self, settings: Settings, model: nn.Module) -> bool:
        """Whether the same is asked for again, of a model with these layers, and was verified."""
        names = {INPUT, *named_layers(model)}
        is_same = self.asked == _plain(settings.layers) and self.weights.keys() <= names
        has_space = all(site.has_space for site in self.sites.values())
        return is_same and bool(self.sites) and (has_space or "cutmix" not in settings.kinds)

    def state(self) -> dict[str, Any]:
        """The choice in plain containers, for a checkpoint."""
        sites = {name: asdict(site) for name, site in self.sites.items()}
        return {"asked": self.asked, "weights": dict(self.weights), "sites": sites}

    @staticmethod
    def of_state(state: Mapping[str, Any]) -> "Choice":
        """The choice that :meth:`state` describes."""
        sites = {name: Site(**site) for name, site in state["sites"].items()}
        return Choice(state["asked"], state["weights"], sites)


def choose_layers(
    host: Host,
    model: nn.Module,
    batch: Any,
    targets: Sequence[Tensor],
    settings: Settings,
) -> Choice | None:
    """Choose and verify the layers of a model, on a few samples of a batch.

    Of several processes the first one chooses for ``"auto"``. It tells the others, all of which
    have to call this for the same batches until there is a choice, and they test what they got.

    Args:
        host: The loop that trains it.
        model: Any module.
        batch: A training batch.
        targets: Its targets.
        settings: Which layers are asked for, and how.

    Returns:
        The choice; None if the batch has fewer than two samples to choose by.

    Raises:
        ValueError: If a layer is no cut, or ``"auto"`` finds none.
    """
    layers, path = settings.layers, settings.input
    if layers == "auto":
        return _told_by_the_first(host, model, batch, targets, settings)
    if len(targets[0]) < 2:
        return None
    weights = select(model, layers)
    if not settings.verify:
        return Choice(_plain(layers), weights, {})
    try:
        probe = host.probe(model, batch, targets, path)
    except NoForwardError as error:
        host.warn(
            f"it can't be tested if all of the signal passes through {_listed(layers)}, since "
            f"{error}; they are mixed all the same, and verify=False hides this warning"
        )
        return Choice(_plain(layers), weights, {})
    with host.running():
        sites = verified(probe, weights)
    if "cutmix" in settings.kinds:
        refuse_without_boxes(sites.values(), positions_of_masks(model, batch, targets, path))
    return Choice(_plain(layers), weights, sites)


def survey(
    host: Host,
    model: nn.Module,
    batch: Any,
    target: Path | Sequence[Path] | None,
    path: Path | None,
) -> tuple[Mapping[str, Site], list[str]]:
    """What can be mixed of a model, and what ``"auto"`` would take.

    Args:
        host: The loop that trains it.
        model: Any module.
        batch: A training batch of two or more samples.
        target: Where the batch holds its target.
        path: Where the batch holds its input.

    Returns:
        Every site but metrics by name, and the names of the chosen ones; none if there is no cut.
    """
    probe = host.probe(model, batch, find_targets(batch, target), path)
    with host.running():
        probe.settle()
        chosen = []
        with suppress(ValueError):  # of a network without cuts
            chosen = _chosen(probe, batch, path)
    metrics = {n for n, m in named_layers(model).items() if isinstance(m, _METRICS)}
    return {name: site for name, site in probe.sites.items() if name not in metrics}, chosen


def judge_input(host: Host, batch: Any, targets: Sequence[Tensor], path: Path | None) -> None:
    """Warn of mixing the input of one of several views.

    Args:
        host: The loop, which refuses more.
        batch: A training batch.
        targets: Its targets.
        path: Where it holds its input.

    Raises:
        ValueError: If the host refuses it.
    """
    value = find_mixable_input(batch, path)
    views = [each for each in siblings(batch, value) if are_alike([value, each])]
    if any(all(view is not target for target in targets) for view in views):
        (place,) = places(batch, [value])
        host.warn(
            f"of some entries of the batch that are alike, as views are, {place!r} alone is mixed "
            "as the input; if the network takes the others, too, name layers without 'input'"
        )
    host.judge(batch, targets)


def found_in(choice: Choice, batch: Any, targets: Sequence[Tensor], path: Path | None) -> str:
    """Where the target and the input of a batch were found, in a line."""
    found = f"target: {written(places(batch, targets)) or 'within an object'}"
    if inputs := recognised_input(batch, path):
        found += f"; input: {written(places(batch, inputs))}"
    elif choice.asked == "auto":
        found += "; no input was recognised, so it is left out: input=<key, index or path>"
    return found


def _told_by_the_first(
    host: Host, model: nn.Module, batch: Any, targets: Sequence[Tensor], settings: Settings
) -> Choice | None:
    path, flat = settings.input, set[str]()
    try:
        probe = host.probe(model, batch, targets, path) if len(targets[0]) > 1 else None
    except NoForwardError as error:
        listed = ", ".join(f'"{name}"' for name in examples(model))
        raise ValueError(
            f'layers="auto" can\'t choose, since {error}; name the layers, as in layers=[{listed}]'
        ) from None
    with host.running():
        names = None
        if probe is not None and host.rank == 0:
            if "cutmix" in settings.kinds:
                flat = without_boxes(probe.sites, positions_of_masks(model, batch, targets, path))
            names = _chosen(probe, batch, path, flat)
        names = host.tell(names)
        if names is None:
            return None
        sites = {} if probe is None else verified(probe, names)
        return Choice("auto", select(model, names), sites)


def _chosen(
    probe: Probe, batch: Any, path: Path | None, refused: Collection[str] = ()
) -> list[str]:
    flat = set(refused)
    try:
        return chosen_automatically(probe, flat if _input_mixes(batch, path) else {INPUT, *flat})
    except ValueError as error:
        if any(probe.sites[name].is_cut for name in flat):
            raise ValueError(
                "layers=\"auto\" found no layer with space, which CutMix needs; use kind='mixup'"
            ) from None
        if recognised_input(batch, path):
            raise
        hint = "no input was recognised, so it was left out: input=<key, index or path>"
        raise ValueError(f"{error}; {hint}") from None


def _input_mixes(batch: Any, path: Path | None) -> bool:
    try:
        find_mixable_input(batch, path)
    except (TypeError, ValueError):
        return False
    return True


def _plain(layers: Layers) -> Any:
    if isinstance(layers, Mapping):
        return dict(layers)
    return layers if isinstance(layers, str) else list(layers)


def _listed(names: Sequence[str] | Mapping[str, float]) -> str:
    return ", ".join(map(repr, names))

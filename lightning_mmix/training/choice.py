"""The choice of the eligible layers: by themselves or by name, and verified."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from lightning_mmix.batches.roles import find_mixable_input, find_targets, recognised_input
from lightning_mmix.core.layers import INPUT, Layers, examples, named_layers, select
from lightning_mmix.core.plan import Recipe
from lightning_mmix.core.trees import Path, are_alike, entries, places, siblings, tensors
from lightning_mmix.cuts.calls import NoForwardError
from lightning_mmix.cuts.probe import Probe
from lightning_mmix.cuts.sites import Site
from lightning_mmix.cuts.tables import layer_table, rendered
from lightning_mmix.cuts.verification import chosen_automatically, verified
from lightning_mmix.training.probes import probe_of
from lightning_mmix.training.trials import unlogged

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

    def fits(self, layers: Layers, model: nn.Module) -> bool:
        """Whether the same is asked for again, of a model with these layers, and was verified."""
        names = {INPUT, *named_layers(model)}
        is_same = self.asked == _plain(layers) and self.weights.keys() <= names
        return is_same and bool(self.sites)

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
    trainer: Trainer,
    batch: Any,
    targets: Sequence[Tensor],
    layers: Layers,
    path: Path | None,
    *,
    verify: bool = True,
) -> Choice | None:
    """Choose and verify the layers of a Trainer's module, on a few samples of a batch.

    Of several processes the first one chooses for ``"auto"``. It tells the others, all of which
    have to call this for the same batches until there is a choice, and they test what they got.

    Args:
        trainer: Whose module it is.
        batch: A training batch.
        targets: Its targets.
        layers: As in :class:`lightning_mmix.ManifoldMixup`.
        path: Where the batch holds its input.
        verify: Whether to test named layers.

    Returns:
        The choice; None if the batch has fewer than two samples to choose by.

    Raises:
        ValueError: If a layer is no cut, or ``"auto"`` finds none.
    """
    if layers == "auto":
        return _told_by_the_first(trainer, batch, targets, path)
    if len(targets[0]) < 2:
        return None
    weights = select(trainer.lightning_module, layers)
    if not verify:
        return Choice(_plain(layers), weights, {})
    try:
        probe = probe_of(trainer, trainer.lightning_module, batch, targets, path)
    except NoForwardError as error:
        rank_zero_warn(
            f"it can't be tested if all of the signal passes through {_listed(layers)}, since "
            f"{error}; they are mixed all the same, and verify=False hides this warning"
        )
        return Choice(_plain(layers), weights, {})
    with unlogged(trainer.lightning_module, trainer):
        return Choice(_plain(layers), weights, verified(probe, weights))


def survey(
    trainer: Trainer,
    module: LightningModule,
    batch: Any,
    target: Path | Sequence[Path] | None,
    path: Path | None,
) -> tuple[Mapping[str, Site], list[str]]:
    """What can be mixed of a module, and what ``"auto"`` would take.

    Args:
        trainer: Whose precision is used.
        module: Any LightningModule.
        batch: A training batch of two or more samples.
        target: Where the batch holds its target.
        path: Where the batch holds its input.

    Returns:
        Every site but metrics by name, and the names of the chosen ones; none if there is no cut.
    """
    targets = find_targets(batch, target)
    probe = probe_of(trainer, module, batch, targets, path)
    with unlogged(module, trainer):
        probe.settle()
        chosen = []
        with suppress(ValueError):  # of a network without cuts
            chosen = _chosen(probe, batch, path)
    metrics = {n for n, m in named_layers(module).items() if isinstance(m, _METRICS)}
    return {name: site for name, site in probe.sites.items() if name not in metrics}, chosen


def judge_input(trainer: Trainer, batch: Any, targets: Sequence[Tensor], path: Path | None) -> None:
    """Refuse to mix the input of one of several data loaders, and warn of that of one of views.

    Args:
        trainer: Whose data loaders they are.
        batch: A training batch.
        targets: Its targets.
        path: Where it holds its input.

    Raises:
        ValueError: If the targets come from more than one of the loaders.
    """
    value = find_mixable_input(batch, path)
    views = [each for each in siblings(batch, value) if are_alike([value, each])]
    if any(all(view is not target for target in targets) for view in views):
        (place,) = places(batch, [value])
        rank_zero_warn(
            f"of some entries of the batch that are alike, as views are, {place!r} alone is mixed "
            "as the input; if the network takes the others, too, name layers without 'input'"
        )
    loaders = trainer.fit_loop._combined_loader
    own = {id(target) for target in targets}
    holders = [part for _, part in entries(batch) if any(id(t) in own for t in tensors(part))]
    if loaders is not None and len(loaders.flattened) > 1 and len(holders) > 1:
        raise ValueError(
            "the batch holds targets of several data loaders, but only the input of one can be "
            "mixed; name layers without 'input'"
        )


def _told_by_the_first(
    trainer: Trainer, batch: Any, targets: Sequence[Tensor], path: Path | None
) -> Choice | None:
    module = trainer.lightning_module
    try:
        probe = probe_of(trainer, module, batch, targets, path) if len(targets[0]) > 1 else None
    except NoForwardError as error:
        listed = ", ".join(f'"{name}"' for name in examples(module))
        raise ValueError(
            f'layers="auto" can\'t choose, since {error}; name the layers, as in layers=[{listed}]'
        ) from error
    with unlogged(module, trainer):
        names = None
        if probe is not None and trainer.is_global_zero:
            names = _chosen(probe, batch, path)
        names = trainer.strategy.broadcast(names)
        if names is None:
            return None
        sites = {} if probe is None else verified(probe, names)
        return Choice("auto", select(module, names), sites)


def show_layers(
    trainer: Trainer, recipe: Recipe, choice: Choice, batch: Any, targets: Sequence[Tensor],
    path: Path | None,
) -> None:  # fmt: skip
    """Print the table of the eligible layers, if the Trainer shows a summary of the model.

    Args:
        trainer: Any Trainer.
        recipe: α and the layers.
        choice: What is known of the layers.
        batch: A training batch.
        targets: Its targets.
        path: Where it holds its input.
    """
    # by name, since the pytorch_lightning package has a ModelSummary of its own
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    kinds = [kind for callback in callbacks for kind in type(callback).__mro__]
    if any(kind.__name__ == "ModelSummary" for kind in kinds):
        found = f"target: {', '.join(places(batch, targets)) or 'within an object'}"
        if inputs := recognised_input(batch, path):
            found += f"; input: {', '.join(places(batch, inputs))}"
        elif choice.asked == "auto":
            found += "; no input was recognised, so it is left out: input=<key, index or path>"
        trainer.print(rendered(layer_table(recipe, choice.sites, found)))


def _chosen(probe: Probe, batch: Any, path: Path | None) -> list[str]:
    try:
        return chosen_automatically(probe, input_mixes=_input_mixes(batch, path))
    except ValueError as error:
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

"""The choice of the eligible layers: by themselves or by name, and verified."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from lightning_mmix.batch import Path, find_mixable_input, find_targets
from lightning_mmix.calls import NoForwardError, probe_on
from lightning_mmix.layers import INPUT, named_layers, select
from lightning_mmix.probe import Probe
from lightning_mmix.sites import Site, choose, nearest_cuts, neighbours

_METRICS = (Metric, MetricCollection)

Layers = Literal["auto"] | Sequence[str] | Mapping[str, float]


@dataclass(frozen=True)
class Choice:
    """The eligible layers of a model.

    Attributes:
        asked: What was asked for, in plain containers.
        weights: The weight of each layer, in the order of the forward pass if that is known.
        sites: What was found out about them; empty if they were not verified.
    """

    asked: str | list[str] | dict[str, float]
    weights: Mapping[str, float]
    sites: Mapping[str, Site]

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
) -> Choice:
    """Choose and verify the layers of a Trainer's module, on a few samples of a batch.

    Args:
        trainer: Whose module it is. Of several processes the first one chooses for ``"auto"``,
            and the others test its choice.
        batch: A training batch.
        targets: Its targets, of two or more samples.
        layers: As in :class:`lightning_mmix.ManifoldMixup`.
        path: Where the batch holds its input.
        verify: Whether to test named layers.

    Raises:
        ValueError: If a layer is no cut, or ``"auto"`` finds none.
    """
    module = trainer.lightning_module
    if layers != "auto" and not verify:
        return Choice(_plain(layers), select(module, layers), {})
    try:
        probe = _probe(trainer, batch, targets, path)
    except NoForwardError as error:
        if layers == "auto":
            example = 'layers=["input", "net.layer1"]'
            raise ValueError(
                f'layers="auto" can\'t choose, since {error}; name the layers: {example}'
            ) from error
        rank_zero_warn(
            f"{_listed(layers)} can't be verified, since {error}; verify=False hides this warning"
        )
        return Choice(_plain(layers), select(module, layers), {})
    with _quiet(module, trainer):
        if layers == "auto":
            chosen = chosen_automatically(probe, input_mixes=_input_mixes(batch, path))
            weights = select(module, trainer.strategy.broadcast(chosen))
        else:
            weights = select(module, layers)
        sites = verified(probe, weights)
        return Choice(_plain(layers), {name: weights[name] for name in sites}, sites)


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
    with _quiet(module, trainer):
        probe = probe_on(module, batch, find_targets(batch, target), path)
        probe.settle()
        chosen = []
        with suppress(ValueError):  # of a network without cuts
            chosen = chosen_automatically(probe, input_mixes=_input_mixes(batch, path))
    metrics = {n for n, m in named_layers(module).items() if isinstance(m, _METRICS)}
    return {name: site for name, site in probe.sites.items() if name not in metrics}, chosen


def chosen_automatically(probe: Probe, *, input_mixes: bool = True) -> list[str]:
    """Choose layers as the paper does, by :func:`lightning_mmix.sites.choose`.

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
        rank_zero_warn(f"neither graph nor values show if {_listed(unsure)} can be mixed")
    return sites


def _probe(trainer: Trainer, batch: Any, targets: Sequence[Tensor], path: Path | None) -> Probe:
    if isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy | DeepSpeedStrategy):
        raise NoForwardError(
            "parameters are sharded, so no forward pass can be run beside the training"
        )
    with _quiet(trainer.lightning_module, trainer):
        return probe_on(trainer.lightning_module, batch, targets, path)


@contextmanager
def _quiet(module: LightningModule, trainer: Trainer) -> Iterator[None]:
    """Run a module in the precision of its Trainer, with nothing logged."""
    own = vars(module)
    names: tuple[str, ...] = ("log", "log_dict")
    shadowed = {name: own[name] for name in names if name in own}
    own.update(log=_nothing, log_dict=_nothing)
    try:
        with trainer.precision_plugin.forward_context():
            yield
    finally:
        del own["log"], own["log_dict"]
        own.update(shadowed)


def _nothing(*_: Any, **__: Any) -> None:
    pass


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


def _no_cut(site: Site, cuts: str) -> ValueError:
    return ValueError(
        f"layer {site.name!r} {site.reason}, so it is no cut of the network and can't be mixed "
        f"exactly; {cuts}; verify=False turns this test off"
    )

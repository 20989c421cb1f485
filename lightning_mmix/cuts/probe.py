"""The probe: forward passes of a network that show which of its layers are cuts."""

import math
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mmix.core.layers import INPUT, named_layers, select
from lightning_mmix.core.plan import MixPlan
from lightning_mmix.core.trees import describe, located
from lightning_mmix.cuts.calls import Call, Inputs, Origin, call, carries
from lightning_mmix.cuts.order import NOTHING, Seen, other_noise, reasons
from lightning_mmix.cuts.recording import Recording, Watch
from lightning_mmix.cuts.rows import TOLERANCE, are_telling, deviation
from lightning_mmix.cuts.signal import Edge, Graph, Lookups, Work, carried, edge
from lightning_mmix.cuts.sites import Site, Why
from lightning_mmix.cuts.snapshot import evaluating
from lightning_mmix.pairing.gates import Gates
from lightning_mmix.pairing.step import Step

_OF_TARGET = Why("depends on the target, which the network takes")


class Probe:
    """A network that is tested for its cuts, layer by layer.

    Args:
        model: Whose layers are named.
        inputs: As in :func:`cut_test`, a few rows of a batch.
        size: Their number, B ≥ 2.
        network: What takes the inputs, if it is not the model itself.
        origins: Where the tensors among the inputs come from; None takes all for inputs.

    Raises:
        ValueError: If there are not two samples, or no floating-point output.

    Attributes:
        sites: What is known so far, in the order of the forward pass.
        forwards: How many forward passes were made.
        seconds: How long they took.

    Example:
        >>> Probe(nn.Sequential(nn.Tanh()), torch.randn(5, 4), size=5).deviation("0") < TOLERANCE
        True
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        *,
        size: int,
        network: Callable[..., Any] | None = None,
        origins: Sequence[Origin] | None = None,
    ) -> None:
        if size < 2:
            raise ValueError(f"expected inputs of at least two samples, but got {describe(inputs)}")
        self.forwards = 0
        self.seconds = 0.0
        self._model = model
        known = [Origin(path) for path, _ in located(inputs)] if origins is None else origins
        self._call = Call(model if network is None else network, inputs, size, known)
        self._size = size
        self._content: dict[int, Tensor] = {}
        self._recorded: list[Tensor] = []
        self._confirmed: set[str] = set()
        self.sites = self._record()

    @property
    def is_batched(self) -> bool:
        """Whether an output has the batch first."""
        return any(output.shape[:1] == (self._size,) for output in self._recorded)

    def confirm(self, names: Collection[str]) -> bool:
        """Test layers by value, unless they are known to be no cuts, and note the verdicts.

        Returns:
            Whether none of them is known to be no cut.
        """
        asked = [name for name in names if self._is_open(name)]
        for few in (asked[i : i + self._size - 1] for i in range(0, len(asked), self._size - 1)):
            # together first: a layer without effect would show as one exchange fewer
            if len(few) > 1 and self._are_cuts(*few):
                self.sites.update({name: _cut(self.sites[name]) for name in few})
            else:
                self.sites.update({name: self._judged(name) for name in few})
            self._confirmed.update(few)
        return all(self.sites[name].is_cut is not False for name in names)

    def settle(self) -> None:
        """Test by value what the graph does not show, and then all that it calls a cut, too."""
        if any(site.is_cut is None for site in self.sites.values()):
            for name in self.sites:
                self.confirm([name])

    def deviation(self, *names: str) -> float | None:
        """How far the output is from being exchanged between the rows as layers' outputs are.

        Args:
            names: Of layers that run one after the other, or ``"input"``; fewer than rows.

        Returns:
            The distance, in units of that between the rows: about 0 for cuts, 1 for one layer
            without effect. None if the output does not tell.
        """
        if not are_telling(self._recorded, self._order):
            return None
        first = self._call.first if INPUT in names else None
        if not are_telling(self._reference, self._order):  # made before there is a gate
            return None
        with ExitStack() as stack:
            for name in set(names) - {INPUT}:
                gates = Gates(self._model, select(self._model, [name]), lasting=False)
                stack.callback(gates.remove)
                gates.arm(Step(MixPlan(name, torch.tensor(0.0), self._order)))
            return self._deviation(lambda tensor: tensor is first, times=len(names))

    def _is_open(self, name: str) -> bool:
        site = self.sites[name]
        # nothing goes past the only input, unless all is unseen
        is_sure = name == INPUT and bool(site.is_cut) and len(self._call.origins) == 1
        return site.is_cut is not False and not is_sure and name not in self._confirmed

    def _are_cuts(self, *names: str) -> bool:
        deviation = self.deviation(*names)
        return deviation is not None and deviation < TOLERANCE

    def _judged(self, name: str) -> Site:
        site, deviation = self.sites[name], self.deviation(name)
        if deviation is not None and deviation < TOLERANCE:
            return _cut(site)
        if deviation is None or deviation < 4 * self._noise:
            return site
        hidden = "" if site.is_cut is None else ", by a way that the graph does not show"
        return site.refused(Why(f"is bypassed{hidden}"))

    @cached_property
    def _noise(self) -> float:
        """The deviation if all of the signal is exchanged: of rounding, and of random numbers."""
        deviation = self._deviation(lambda _: True)
        return math.inf if deviation is None else deviation

    @cached_property
    def _reference(self) -> list[Tensor]:
        if not self._content and all(carries(*each) for each in self._call.known):
            return self._recorded  # what is run again for the values is the same
        return self._values(exchanged=lambda _: False)

    @property
    def _order(self) -> Tensor:
        return torch.arange(self._size).roll(1)

    def _record(self) -> dict[str, Site]:
        """Judge all layers by the autograd graph of one forward pass."""
        sources: dict[Edge, Why] = {}
        with torch.enable_grad():
            begun = self._call.sprouted(sources)
        work, lookups = Work(), Lookups(self._size)
        recording = Recording(self._model, self._size, work)
        recording.begin(begun.first)
        outputs = self._run(begun, torch.enable_grad(), lookups, work, recording)
        if not outputs:
            name = getattr(begun.network, "__name__", type(begun.network).__name__)
            raise ValueError(f"{name} puts out no floating-point tensor")
        self._recorded, self._content = [leaf.detach() for leaf in outputs], lookups.content
        of_targets = self._of_targets(recording)
        looked_up = [at for place, at in lookups.sources.items() if place in self._content]
        ends = [edge(leaf) for leaf in outputs if leaf.requires_grad]
        sites = recording.sites(Graph(ends, [*sources, *looked_up]), sources)
        sites.update({name: sites[name].refused(_OF_TARGET) for name in of_targets})
        return {**sites, **self._out_of_order(sites, Seen.of(recording, self._call.first, outputs))}

    def _out_of_order(self, sites: Mapping[str, Site], before: Seen) -> dict[str, Site]:
        """The layers that would be cuts, if their rows were those of the batch."""
        cuts = {name for name, site in sites.items() if site.is_cut is not False}
        modules = {name: m for name, m in named_layers(self._model).items() if name in cuts}
        found = reasons(before, self._call.inputs, self._size, partial(self._seen, modules))
        return {name: sites[name].refused(why) for name, why in found.items() if name in cuts}

    def _of_targets(self, before: Watch) -> set[str]:
        """The layers that depend on the targets; what these look up is no signal from now on."""
        if not any(origin.is_target for origin in self._call.origins):
            return set()
        other = self._call.changed(lambda t, origin: t.roll(1, 0) if origin.is_target else t)
        lookups, after = Lookups(self._size), Watch(named_layers(self._model), self._size)
        try:
            self._run(other, torch.enable_grad(), lookups, after)
        except Exception:  # a network may refuse targets that are another sample's
            return set()
        self._content = {
            place: content
            for place, content in self._content.items()
            if place in lookups.content and torch.equal(content, lookups.content[place])
        }
        return before.differing(after)

    def _seen(self, modules: Mapping[str, nn.Module], inputs: Inputs) -> Seen:
        watch, noise = Watch(modules, self._size), other_noise(self._recorded)
        moved = replace(self._call, inputs=inputs)
        try:
            outputs = self._run(moved, torch.no_grad(), noise, watch)
        except Exception:  # a network may refuse rows in another order
            return NOTHING
        return Seen.of(watch, moved.first, outputs)

    def _deviation(self, exchanged: Callable[[Tensor], bool], times: int = 1) -> float | None:
        """The largest deviation of an output, relative to the distance between its rows."""
        order = torch.arange(self._size).roll(times)
        return deviation(self._values(exchanged), self._reference, order)

    def _values(self, exchanged: Callable[[Tensor], bool]) -> list[Tensor]:
        """The outputs, with some of the signal exchanged between the rows.

        What is no signal is made equal in all rows, so that no mask or length tells them apart.
        """
        content = {
            place: tensor[self._order] if exchanged(tensor) else tensor
            for place, tensor in self._content.items()
        }
        only = bool(self._content) or self._call.has_signal
        moved = self._call.exchanged(exchanged, self._order, only=only)
        try:
            return self._run(moved, torch.no_grad(), Lookups(self._size, content))
        except Exception:  # a network may refuse rows that do not belong together
            return []

    def _run(self, made: Call, *contexts: AbstractContextManager[Any]) -> list[Tensor]:
        """The floating-point outputs of one forward pass in evaluation mode."""
        started = time.perf_counter()
        self.forwards += 1
        with ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # they come again when the network is trained
            stack.enter_context(evaluating(self._model))
            for context in contexts:
                stack.enter_context(context)
            outputs = carried(call(made.network, made.inputs))
        self.seconds += time.perf_counter() - started
        return outputs


def _cut(site: Site) -> Site:
    return replace(site, is_cut=True, reason="", advice="")

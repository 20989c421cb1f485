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
from lightning_mmix.core.trees import describe, mapped, tensors
from lightning_mmix.cuts.order import Seen, other_noise, reasons
from lightning_mmix.cuts.recording import Recording
from lightning_mmix.cuts.rows import TOLERANCE, Watch, are_telling, deviation
from lightning_mmix.cuts.signal import Edge, Graph, Lookups, Work, edge, is_signal, sprouted
from lightning_mmix.cuts.sites import Site
from lightning_mmix.cuts.snapshot import evaluating
from lightning_mmix.pairing.gates import Gates
from lightning_mmix.pairing.step import Step

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]

ROWS = 5  # few, and no size that other dimensions of networks have


class Probe:
    """A network that is tested for its cuts, layer by layer.

    Args:
        model: Whose layers are named.
        inputs: As in :func:`cut_test`, a few rows of a batch.
        size: Their number, B ≥ 2.
        network: What takes the inputs, if it is not the model itself.

    Raises:
        ValueError: If there are not two samples, or no floating-point output.

    Attributes:
        sites: What is known so far, in the order of the forward pass.
        forwards: How many forward passes were made.
        seconds: How long they took.
    """

    def __init__(
        self, model: nn.Module, inputs: Inputs, *, size: int, network: nn.Module | None = None
    ) -> None:
        if size < 2:
            raise ValueError(f"expected inputs of at least two samples, but got {describe(inputs)}")
        self.forwards = 0
        self.seconds = 0.0
        self._model = model
        self._network = model if network is None else network
        self._inputs = inputs
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
        first = next(filter(is_signal, tensors(self._inputs)), None) if INPUT in names else None
        reference = self._reference  # made before there is a gate
        if not any(are_telling(before, self._order) for before in reference):
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
        is_sure = name == INPUT and bool(site.is_cut) and sum(1 for _ in tensors(self._inputs)) == 1
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
        unseen = "" if site.is_cut is None else ", by a way that the graph does not show"
        return replace(site, is_cut=False, reason=f"is bypassed{unseen}")

    @cached_property
    def _noise(self) -> float:
        """The deviation if all of the signal is exchanged: of rounding, and of random numbers."""
        deviation = self._deviation(lambda _: True)
        return math.inf if deviation is None else deviation

    @cached_property
    def _reference(self) -> list[Tensor]:
        if not self._content and all(map(is_signal, tensors(self._inputs))):
            return self._recorded  # what is run again for the values is the same
        return self._values(exchanged=lambda _: False)

    @property
    def _order(self) -> Tensor:
        return torch.arange(self._size).roll(1)

    def _record(self) -> dict[str, Site]:
        """Judge all layers by the autograd graph of one forward pass."""
        sources: list[Edge] = []
        with torch.enable_grad():
            inputs = mapped(self._inputs, lambda t: sprouted(t, sources) if is_signal(t) else t)
        first = sources[:1]
        work, lookups = Work(), Lookups(self._size)
        recording = Recording(self._model, self._size, work)
        outputs = self._run(inputs, torch.enable_grad(), lookups, work, recording)
        if not outputs:
            raise ValueError(f"{type(self._network).__name__} puts out no floating-point tensor")
        sources += lookups.sources
        self._recorded = [leaf.detach() for leaf in outputs]
        self._content = lookups.content
        graph = Graph([edge(leaf) for leaf in outputs if leaf.requires_grad], sources)
        sites = {INPUT: self._input_site(graph, first), **recording.sites(graph)}
        before = Seen.of(recording, self._inputs, outputs)
        return {**sites, **self._out_of_order(sites, before)}

    def _out_of_order(self, sites: Mapping[str, Site], before: Seen) -> dict[str, Site]:
        """The layers that would be cuts, if their rows were those of the batch."""
        cuts = {name for name, site in sites.items() if site.is_cut is not False}
        modules = {name: m for name, m in named_layers(self._model).items() if name in cuts}
        found = reasons(before, self._inputs, self._size, partial(self._seen, modules))
        return {
            name: replace(sites[name], is_cut=False, reason=reason)
            for name, reason in found.items()
            if name in cuts
        }

    def _seen(self, modules: Mapping[str, nn.Module], inputs: Inputs) -> Seen:
        watch, noise = Watch(modules, self._size), other_noise(self._recorded)
        try:
            outputs = self._run(inputs, torch.no_grad(), noise, watch)
        except Exception:  # a network may refuse rows in another order
            return Seen({}, [])
        return Seen.of(watch, inputs, outputs)

    def _input_site(self, graph: Graph, first: list[Edge]) -> Site:
        tensor = next(filter(is_signal, tensors(self._inputs)), None)
        if tensor is None:
            return Site(INPUT, "", None, 0.0, False, "is not floating point")
        site = Site(INPUT, "", tuple(tensor.shape[1:]), 0.0)
        if graph.is_blind:
            return replace(site, is_cut=None, reason="is not shown by the graph")
        is_bypassed = graph.bypasses(first)
        return replace(site, is_cut=False, reason="is bypassed") if is_bypassed else site

    def _deviation(self, exchanged: Callable[[Tensor], bool], times: int = 1) -> float | None:
        """The largest deviation of an output, relative to the distance between its rows."""
        order = torch.arange(self._size).roll(times)
        return deviation(self._values(exchanged), self._reference, order)

    def _values(self, exchanged: Callable[[Tensor], bool]) -> list[Tensor]:
        """The outputs, with some of the signal exchanged between the rows.

        What is no signal is made equal in all rows, so that no mask or length tells them apart.
        """
        has_signal = bool(self._content) or any(map(is_signal, tensors(self._inputs)))

        def value(tensor: Tensor) -> Tensor:
            if tensor.shape[:1] != (self._size,):
                return tensor
            is_image = tensor.dtype == torch.uint8 and tensor.dim() > 2
            if has_signal and not is_signal(tensor) and not is_image:
                return tensor[:1].expand_as(tensor).contiguous()
            return tensor[self._order] if exchanged(tensor) else tensor

        content = {place: value(tensor) for place, tensor in self._content.items()}
        inputs = mapped(self._inputs, value)
        try:
            return self._run(inputs, torch.no_grad(), Lookups(self._size, content))
        except Exception:  # a network may refuse rows that do not belong together
            return []

    def _run(self, inputs: Inputs, *contexts: AbstractContextManager[Any]) -> list[Tensor]:
        """The floating-point outputs of one forward pass in evaluation mode."""
        started = time.perf_counter()
        self.forwards += 1
        with ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # they come again when the network is trained
            stack.enter_context(evaluating(self._model))
            for context in contexts:
                stack.enter_context(context)
            outputs = list(filter(is_signal, tensors(call(self._network, inputs))))
        self.seconds += time.perf_counter() - started
        return outputs


def call(network: nn.Module, inputs: Inputs) -> Any:
    """Run a network on a tensor, on arguments in order, or on arguments by name."""
    if isinstance(inputs, Tensor):
        return network(inputs)
    return network(**inputs) if isinstance(inputs, Mapping) else network(*inputs)


def _cut(site: Site) -> Site:
    return replace(site, is_cut=True, reason="")

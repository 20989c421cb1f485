"""A recording of one forward pass: what each layer put out, and where that went."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from lightning_mmix.core.layers import INPUT, named_layers, takes_hooks
from lightning_mmix.core.trees import tensors
from lightning_mmix.cuts.rows import Rows
from lightning_mmix.cuts.signal import Edge, Graph, Work, carried, differs, edge, is_signal
from lightning_mmix.cuts.sites import Site, Why, not_first
from lightning_mmix.pairing.gates import changed


class Watch:
    """Watches the rows of layers, within a context, during one forward pass.

    Args:
        modules: The layers, by name.
        size: B, the number of samples.

    Attributes:
        size: The same.
        rows: Those of the hidden states that each layer has put out.
    """

    def __init__(self, modules: Mapping[str, nn.Module], size: int) -> None:
        self.rows: dict[str, list[Rows]] = {}
        self._modules = modules
        self.size = size
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "Watch":
        for name, module in self._modules.items():
            if takes_hooks(module):
                hook = _Hook(self, name)
                # first, where a gate will stand
                handle = module.register_forward_hook(hook, prepend=True, with_kwargs=True)
                self._handles.append(handle)
        return self

    def __exit__(self, *_error: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def note(self, name: str, module: nn.Module, _inputs: Any, output: Any) -> Any:
        """Note what a layer puts out, before an in-place operation changes it.

        Returns:
            What it puts out from now on.
        """

        def keep(state: Tensor, dim: int) -> Tensor:
            self.keep(name, state, dim)
            return state

        return changed(module, output, self.size, keep)

    def keep(self, name: str, state: Tensor, dim: int = 0) -> None:
        """Keep the rows of a hidden state."""
        self.rows.setdefault(name, []).append(Rows.of(state, self.size, dim))

    def differing(self, other: "Watch") -> set[str]:
        """The layers of which another pass shows other rows."""
        pairs = {n: zip(rows, other.rows.get(n, []), strict=False) for n, rows in self.rows.items()}
        return {name for name in pairs if any(one.differ(two) for one, two in pairs[name])}


@dataclass(frozen=True)
class _End:
    """The end of a layer's forward pass.

    Attributes:
        shape: Of its first hidden state, without the batch; None if there is none.
        edges: Where the hidden states stand in the autograd graph.
        is_seen: Whether the graph shows all that differs between the samples.
        flops: The work done so far.
        problem: Why it can't be mixed at all; None if it can.
    """

    shape: tuple[int, ...] | None
    edges: list[Edge]
    is_seen: bool
    flops: int
    problem: Why | None


class Recording(Watch):
    """Watches the layers of a model, within a context, during one forward pass.

    Args:
        model: Any module.
        size: B, the number of samples.
        work: What counts the work of the pass.
    """

    def __init__(self, model: nn.Module, size: int, work: Work) -> None:
        super().__init__(named_layers(model), size)
        self._ends: dict[str, list[_End]] = {}
        self._work = work

    def begin(self, first: Tensor | None) -> None:
        """Note the input, as if a layer had put it out."""
        shape = None if first is None else tuple(first.shape[1:])
        edges = [] if first is None else [edge(first)]
        self._ends[INPUT] = [_End(shape, edges, True, 0, _of_input(first, self.size))]

    @override
    def note(self, name: str, module: nn.Module, inputs: Any, output: Any) -> Any:
        """Note what a layer puts out, before an in-place operation changes it.

        Returns:
            The output, with a copy of what the layer only passes on: its own place in the graph.
        """
        hidden: list[tuple[Tensor, int]] = []
        entered = {edge(leaf) for leaf in tensors(inputs) if leaf.requires_grad}

        def keep(state: Tensor, dim: int) -> Tensor:
            own = state.clone() if edge(state) in entered else state
            hidden.append((own, dim))
            self.keep(name, own, dim)
            return own

        output = changed(module, output, self.size, keep)
        end = _End(
            shape=_shape_of_a_sample(*hidden[0]) if hidden else None,
            edges=[edge(state) for state, _ in hidden if state.requires_grad],
            is_seen=all(state.requires_grad or not differs(state, dim) for state, dim in hidden),
            flops=self._work.flops,
            problem=None if hidden else _why_none(output, self.size),
        )
        self._ends[name] = [*self._ends.pop(name, []), end]  # in the place of the last run
        return output

    def sites(self, graph: Graph, sources: Mapping[Edge, Why]) -> dict[str, Site]:
        """The input and all layers, judged by the graph of the recorded pass.

        Args:
            graph: Of the pass.
            sources: Where its signal begins, and what is bypassed by it.

        Returns:
            Name → site, in the order in which the layers end; one that does not run stands before
            the layer that holds it.
        """
        places = {name: place for place, name in enumerate(self._ends)}

        def place(name: str) -> tuple[int, bool]:
            runs = name in places
            while name and name not in places:
                name = name.rpartition(".")[0]
            return places.get(name, len(places)), runs

        names = sorted([INPUT, *self._modules], key=place)
        sites = (self._site(name, places.get(name)) for name in names)
        return {site.name: self._judged(site, graph, sources) for site in sites}

    def _bypass(
        self, name: str, edges: Iterable[Edge], graph: Graph, sources: Mapping[Edge, Why]
    ) -> Why | None:
        """What reaches an output past a layer: an entry of the batch, or else another layer."""
        detour = graph.detour(edges)
        if detour is None:
            return None
        for source in sources:
            if source in detour.sources:
                return sources[source]
        beside = [
            other
            for other, ends in self._ends.items()
            if not detour.beside.isdisjoint(each for end in ends for each in end.edges)
            and not f"{other}.".startswith(f"{name}.")
        ]
        outermost = min(beside, key=lambda other: other.count("."), default=None)
        return Why(f"is bypassed by layer {outermost!r}" if outermost else "is bypassed")

    def _site(self, name: str, place: int | None) -> Site:
        kind = "" if name == INPUT else type(self._modules[name]).__name__
        if place is None:
            return Site(name, kind)
        end = self._ends[name][-1]
        # without work that can be counted, depth is the place in the order
        total = self._work.flops
        depth = (end.flops / total) if total else place / len(self._ends)
        return Site(name, kind, end.shape, depth)

    def _judged(self, site: Site, graph: Graph, sources: Mapping[Edge, Why]) -> Site:
        why = _simple_reason(self._ends.get(site.name, []))
        if why is not None:
            return site.refused(why)
        ends = self._ends[site.name]
        edges = [each for end in ends for each in end.edges]
        if graph.is_blind or not all(end.is_seen for end in ends):
            return replace(site, is_cut=None, reason="is not shown by the graph")
        if not edges:
            return site.refused(Why("is the same for all samples"))
        if not graph.uses(edges):
            return site.refused(Why("is not used"))
        why = self._bypass(site.name, edges, graph, sources)
        return site if why is None else site.refused(why)


@dataclass(frozen=True)
class _Hook:
    """The forward hook of one layer."""

    watch: Watch
    name: str

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        return self.watch.note(self.name, module, (args, kwargs), output)


def _simple_reason(ends: Sequence[_End]) -> Why | None:
    """Why a layer can't be mixed, whatever else there is; runs side by side are mixed alike."""
    if not ends:
        return Why("never runs in forward")
    if Graph.are_in_line([end.edges for end in ends]):
        return Why(f"runs {len(ends)} times, one after the other")
    return next((end.problem for end in ends if end.problem is not None), None)


def _of_input(first: Tensor | None, size: int) -> Why | None:
    if first is None:
        return Why("is not floating point")
    return None if first.shape[:1] == (size,) else not_first(first.shape, size)


def _shape_of_a_sample(state: Tensor, dim: int) -> tuple[int, ...]:
    return tuple(state.shape[:dim] + state.shape[dim + 1 :])


def _why_none(output: Any, size: int) -> Why:
    signals = [leaf for leaf in tensors(output) if is_signal(leaf)]
    if signals:
        return not_first(signals[0].shape, size)
    if carried(output):
        return Why(f"puts out an object of class {type(output).__name__}, no tensor")
    return Why("puts out no floating-point tensor")

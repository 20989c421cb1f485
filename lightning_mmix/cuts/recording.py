"""A recording of one forward pass: what each layer put out, and where that went."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from lightning_mmix.core.layers import named_layers
from lightning_mmix.core.trees import tensors
from lightning_mmix.cuts.rows import Watch
from lightning_mmix.cuts.signal import Edge, Graph, Work, differs, edge, is_signal
from lightning_mmix.cuts.sites import Site
from lightning_mmix.pairing.gates import changed


@dataclass(frozen=True)
class _End:
    """The end of a layer's forward pass.

    Attributes:
        shape: Of its first hidden state, without the batch; None if there is none.
        edges: Where the hidden states stand in the autograd graph.
        is_seen: Whether the graph shows all that differs between the samples.
        flops: The work done so far.
        problem: Why it can't be mixed at all; empty if it can.
    """

    shape: tuple[int, ...] | None
    edges: list[Edge]
    is_seen: bool
    flops: int
    problem: str


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
            problem="" if hidden else _why_none(output),
        )
        self._ends.setdefault(name, []).append(end)
        return output

    def sites(self, graph: Graph) -> dict[str, Site]:
        """All layers, judged by the graph of the recorded pass.

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

        return {
            name: self._site(name, places.get(name), graph)
            for name in sorted(self._modules, key=place)
        }

    def _site(self, name: str, place: int | None, graph: Graph) -> Site:
        module = self._modules[name]
        if place is None:
            return Site(name, type(module).__name__, is_cut=False, reason="never runs in forward")
        ends = self._ends[name]
        # without work that can be counted, depth is the place in the order
        total = self._work.flops
        depth = ends[-1].flops / total if total else (place + 1) / (len(self._ends) + 1)
        is_cut, reason = _verdict(ends, graph)
        return Site(name, type(module).__name__, ends[-1].shape, depth, is_cut, reason)


def _verdict(ends: list[_End], graph: Graph) -> tuple[bool | None, str]:
    (end, *others) = ends
    if others:
        return False, f"runs {len(ends)} times"
    if end.problem:
        return False, end.problem
    if graph.is_blind or not end.is_seen:
        return None, "is not shown by the graph"
    if not end.edges:
        return False, "is the same for all samples"
    if not graph.uses(end.edges):
        return False, "is not used"
    return (False, "is bypassed") if graph.bypasses(end.edges) else (True, "")


def _shape_of_a_sample(state: Tensor, dim: int) -> tuple[int, ...]:
    return tuple(state.shape[:dim] + state.shape[dim + 1 :])


def _why_none(output: Any) -> str:
    signals = [leaf for leaf in tensors(output) if is_signal(leaf)]
    if not signals:
        return "puts out no floating-point tensor"
    return f"is not batch-first: {tuple(signals[0].shape)}"

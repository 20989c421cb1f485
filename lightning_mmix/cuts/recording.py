"""A recording of one forward pass: what each layer put out, and where that went."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_mmix.core.layers import named_layers, takes_hooks
from lightning_mmix.core.trees import tensors
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


class Recording:
    """Watches the layers of a model, within a context, during one forward pass.

    Args:
        model: Any module.
        size: B, the number of samples.
        work: What counts the work of the pass.
    """

    def __init__(self, model: nn.Module, size: int, work: Work) -> None:
        self._modules = named_layers(model)
        self._size = size
        self._ends: dict[str, list[_End]] = {}
        self._work = work
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "Recording":
        for name, module in self._modules.items():
            if takes_hooks(module):
                watch = _Watch(self, name)
                # first, where a gate will stand
                handle = module.register_forward_hook(watch, prepend=True, with_kwargs=True)
                self._handles.append(handle)
        return self

    def __exit__(self, *_error: object) -> None:
        while self._handles:
            self._handles.pop().remove()

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
            return own

        output = changed(module, output, self._size, keep)
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


@dataclass(frozen=True)
class _Watch:
    """The forward hook of one layer."""

    recording: Recording
    name: str

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        return self.recording.note(self.name, module, (args, kwargs), output)


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

"""The signal of a network: where it comes from, how it flows, and what work is done on it."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Edge = tuple[Any, int]  # a node of the autograd graph, and which of its outputs

_LOOKUPS = (F.embedding, F.embedding_bag, torch.embedding)
_INDEXING = (Tensor.__getitem__, Tensor.index_select, torch.index_select)  # of a parameter


def edge(tensor: Tensor) -> Edge:
    """Where a tensor stands in the autograd graph now; an in-place operation moves it on."""
    return tensor.grad_fn, tensor.output_nr


class Graph:
    """The autograd graph between the outputs of a network and the sources of its signal.

    Args:
        outputs: Where the network's outputs stand.
        sources: Where the signal begins.

    Attributes:
        is_blind: Whether no path leads from the outputs to a source.
    """

    def __init__(self, outputs: Iterable[Edge], sources: Iterable[Edge]) -> None:
        self._outputs = list(outputs)
        self._sources = set(sources)
        self._edges = self._leading_to_outputs(past=())
        self.is_blind = self._edges.isdisjoint(self._sources)

    def uses(self, edges: Iterable[Edge]) -> bool:
        """Whether one of ``edges`` leads to an output."""
        return not self._edges.isdisjoint(edges)

    def bypasses(self, edges: Iterable[Edge]) -> bool:
        """Whether a path leads from a source to an output past all ``edges``."""
        return not self._leading_to_outputs(past=edges).isdisjoint(self._sources)

    def _leading_to_outputs(self, past: Iterable[Edge]) -> set[Edge]:
        closed = set(past)
        found: set[Edge] = set()
        ahead = list(self._outputs)
        while ahead:
            here = ahead.pop()
            if here[0] is not None and here not in found and here not in closed:
                found.add(here)
                ahead += here[0].next_functions
        return found


def is_signal(tensor: Tensor) -> bool:
    """Whether a tensor may carry the signal: whether it is floating point or complex."""
    return tensor.is_floating_point() or tensor.is_complex()


def differs(tensor: Tensor, dim: int = 0) -> bool:
    """Whether a tensor is not the same for all samples of a batch, along ``dim``."""
    return bool((tensor != tensor.narrow(dim, 0, 1)).any())


class Lookups(TorchFunctionMode):
    """Notes what is looked up in embeddings, or gives back what was noted.

    Attributes:
        content: What each look-up that is different between the samples has put out, by its place
            among all look-ups of a forward pass.
        sources: Where it stands in the autograd graph.
    """

    def __init__(self, size: int, content: dict[int, Tensor] | None = None) -> None:
        super().__init__()
        self.content = {} if content is None else content
        self.sources: list[Edge] = []
        self._plays = content is not None
        self._size = size
        self._count = -1

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run any function, and stand by at a look-up."""
        output = func(*args, **(kwargs or {}))
        if not _is_lookup(func, args):
            return output
        self._count += 1
        if self._plays:
            return self.content.get(self._count, output)
        if output.shape[:1] != (self._size,) or not is_signal(output) or not differs(output):
            return output
        self.content[self._count] = output.detach()
        return sprouted(output, self.sources)


def _is_lookup(func: Any, args: tuple[Any, ...]) -> bool:
    is_index = func in _INDEXING and isinstance(args[0], nn.Parameter)
    return func in _LOOKUPS or is_index


def sprouted(tensor: Tensor, sources: list[Edge]) -> Tensor:
    """A copy of a tensor with which an autograd graph begins; ``sources`` gets its place."""
    begun = tensor.detach().requires_grad_().clone()
    if begun.requires_grad:  # not so under no_grad
        sources.append(edge(begun))
    return begun


class Work(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Counts floating-point operations of the forward passes within it.

    Attributes:
        flops: Of matrix products, convolutions, attention and recurrent layers, so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run any operation, and count its work."""
        output = func(*args, **(kwargs or {}))
        packet = getattr(func, "_overloadpacket", func)
        if packet in flop_registry:
            self.flops += flop_registry[packet](*args, **(kwargs or {}), out_val=output)
        elif packet in (torch.ops.aten.mkldnn_rnn_layer, torch.ops.aten._cudnn_rnn):
            weights = [w for w in _flat(args[1:5]) if w.dim() == 2]
            self.flops += 2 * args[0][..., 0].numel() * sum(w.numel() for w in weights)
        return output


def _flat(args: Any) -> list[Tensor]:
    if isinstance(args, Tensor):
        return [args]
    return [leaf for arg in args for leaf in _flat(arg)] if isinstance(args, list | tuple) else []

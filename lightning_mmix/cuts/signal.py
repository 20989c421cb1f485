"""The signal of a network: where it comes from, how it flows, and what work is done on it."""

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lightning_mmix.core.trees import entries, tensors

Edge = tuple[Any, int]  # a node of the autograd graph, and which of its outputs

_LOOKUPS = (F.embedding, F.embedding_bag, torch.embedding)
_INDEXING = (Tensor.__getitem__, Tensor.index_select, torch.index_select)  # of a parameter


def edge(tensor: Tensor) -> Edge:
    """Where a tensor stands in the autograd graph now; an in-place operation moves it on."""
    return tensor.grad_fn, tensor.output_nr


@dataclass(frozen=True)
class Detour:
    """How the signal reaches the outputs past some places of a graph.

    Attributes:
        sources: Those of which nothing passes through the places.
        beside: Where it goes, but for what lies before the places or behind them.
    """

    sources: set[Edge]
    beside: set[Edge]


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
        self._edges = _reached(self._outputs, _inputs_of)
        self.is_blind = self._edges.isdisjoint(self._sources)

    def uses(self, edges: Iterable[Edge]) -> bool:
        """Whether one of ``edges`` leads to an output."""
        return not self._edges.isdisjoint(edges)

    def detour(self, edges: Iterable[Edge]) -> Detour | None:
        """How a path leads from a source to an output past all ``edges``; None if none does."""
        closed = list(edges)
        around = _reached(self._outputs, _inputs_of, closed)
        sources = around & self._sources
        if not sources:
            return None
        before = _reached(closed, _inputs_of)
        return Detour(sources - before, around & self._signal - before - self._behind(closed))

    @staticmethod
    def are_in_line(runs: Sequence[Iterable[Edge]]) -> bool:
        """Whether what one of a layer's runs puts out leads to what a later one does."""
        ends = [set(run) for run in runs]
        return any(
            not _reached(ends[place], _inputs_of).isdisjoint(set().union(*ends[:place]))
            for place in reversed(range(1, len(ends)))
        )

    def _behind(self, edges: Iterable[Edge]) -> set[Edge]:
        return _reached(edges, lambda here: self._users.get(here, ()))

    @cached_property
    def _signal(self) -> set[Edge]:
        """Where there is signal: a look-up by a target is none."""
        return self._behind(self._sources)

    @cached_property
    def _users(self) -> Mapping[Edge, list[Edge]]:
        """What takes the signal from each place."""
        users: defaultdict[Edge, list[Edge]] = defaultdict(list)
        for here in self._edges:
            for source in _inputs_of(here):
                users[source].append(here)
        return users


def is_signal(tensor: Tensor) -> bool:
    """Whether a tensor may carry the signal: whether it is floating point or complex."""
    return tensor.is_floating_point() or tensor.is_complex()


def carried(output: Any) -> list[Tensor]:
    """What may carry the signal in an output: its tensors, or else what its objects hold.

    Where there is no such tensor in nested containers, the attributes of anything else, such as a
    distribution, are searched; but beside tensors objects are no outputs, as a cache is none.
    Modules, and what they hold, are never searched.
    """
    plain = list(filter(is_signal, tensors(output)))
    return plain or list(filter(is_signal, _held(output, {})))


def differs(tensor: Tensor, dim: int = 0) -> bool:
    """Whether a tensor is not the same for all samples of a batch, along ``dim``."""
    return bool((tensor != tensor.narrow(dim, 0, 1)).any())


class Lookups(TorchFunctionMode):
    """Notes where integers become signal, or gives back what was noted.

    They are looked up in embeddings, or are images of bytes that become floating point.

    Attributes:
        content: What each look-up that is different between the samples has put out, by its place
            among all look-ups of a forward pass.
        sources: Where it stands in the autograd graph, by the same place.
    """

    def __init__(self, size: int, content: dict[int, Tensor] | None = None) -> None:
        super().__init__()
        self.content = {} if content is None else content
        self.sources: dict[int, Edge] = {}
        self._plays = content is not None
        self._size = size
        self._count = -1

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run any function, and stand by at a look-up."""
        output = func(*args, **(kwargs or {}))
        if not _is_lookup(func, args) and not _is_conversion(func, args, output):
            return output
        self._count += 1
        if self._plays:
            noted = self.content.get(self._count)
            return output if noted is None else noted.clone()  # it may be changed in place
        if output.shape[:1] != (self._size,) or not is_signal(output) or not differs(output):
            return output
        self.content[self._count] = output.detach()
        begun = sprouted(output)
        if begun.requires_grad:  # not so under no_grad
            self.sources[self._count] = edge(begun)
        return begun


def _is_lookup(func: Any, args: tuple[Any, ...]) -> bool:
    is_index = func in _INDEXING and isinstance(args[0], nn.Parameter)
    return func in _LOOKUPS or is_index


def _is_conversion(func: Any, args: tuple[Any, ...], output: Any) -> bool:
    """Whether an image of bytes, (B, ..., H, W), becomes floating point, and no noise like it."""
    image = args[0] if args else None
    if not isinstance(image, Tensor) or not isinstance(output, Tensor):
        return False
    is_made = image.dtype == torch.uint8 and image.dim() > 2 and output.is_floating_point()
    return is_made and not func.__name__.endswith("_like")


def sprouted(tensor: Tensor) -> Tensor:
    """A copy of a tensor with which an autograd graph begins."""
    return tensor.detach().requires_grad_().clone()


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


def _inputs_of(here: Edge) -> Iterable[Edge]:
    return here[0].next_functions  # type: ignore[no-any-return]  # torch's own


def _reached(
    starts: Iterable[Edge], ahead_of: Callable[[Edge], Iterable[Edge]], closed: Iterable[Edge] = ()
) -> set[Edge]:
    """The places to which paths lead from ``starts``, those included, past what is closed."""
    shut, found, ahead = set(closed), set[Edge](), list(starts)
    while ahead:
        here = ahead.pop()
        if here[0] is not None and here not in found and here not in shut:
            found.add(here)
            ahead += ahead_of(here)
    return found


def _held(thing: Any, known: dict[int, Any]) -> Iterator[Tensor]:
    """The tensors within a thing that is not known yet, but for parameters."""
    if isinstance(thing, Tensor):
        if not isinstance(thing, nn.Parameter):
            yield thing
    elif not isinstance(thing, nn.Module | ModuleType | type) and not inspect.isroutine(thing):
        if id(thing) not in known:
            known[id(thing)] = thing
            parts = dict(entries(thing)) or getattr(thing, "__dict__", {})
            for part in parts.values():
                yield from _held(part, known)

"""Calls: the ways in which a module's forward may take a batch."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mmix.batches.names import kind
from lightning_mmix.batches.roles import find_input, recognised_input
from lightning_mmix.core.trees import Path, converted, entries, is_keyed, located, mapped, tensors
from lightning_mmix.cuts.rows import few_rows
from lightning_mmix.cuts.signal import Edge, edge, is_signal, sprouted
from lightning_mmix.cuts.sites import Why, by_entry

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]

ROWS = 5  # few, and no size that other dimensions of networks have


class NoForwardError(ValueError):
    """A module whose forward pass does not take its batch."""


@dataclass(frozen=True)
class Origin:
    """Where a tensor among a network's inputs comes from.

    Attributes:
        entry: Where the batch holds it, as a dotted path; empty if it is all of it.
        is_target: Whether it is one of the batch's targets.
        is_input: Whether it is the batch's input.
    """

    entry: str
    is_target: bool = False
    is_input: bool = False


@dataclass(frozen=True)
class Call:
    """What is run, and on what.

    The signal is what is floating point. Targets are none: in training each layer behind them runs
    for a sample's own and for its partner's.

    Attributes:
        network: A module, or a function of its arguments.
        inputs: A tensor, arguments in order or arguments by name.
        size: B, their number of samples.
        origins: Of all tensors among the inputs, in their order.
    """

    network: Callable[..., Any]
    inputs: Inputs
    size: int
    origins: Sequence[Origin]

    @property
    def known(self) -> list[tuple[Tensor, Origin]]:
        """The tensors among the inputs, with their origins."""
        return list(zip(tensors(self.inputs), self.origins, strict=True))

    @property
    def first(self) -> Tensor | None:
        """The input, or else the first signal; None if that is not floating point."""
        inputs = [tensor for tensor, origin in self.known if origin.is_input]
        signals = [tensor for tensor, origin in self.known if carries(tensor, origin)]
        first = next(iter(inputs or signals), None)
        return first if first is not None and is_signal(first) else None

    @property
    def has_signal(self) -> bool:
        """Whether there is signal among the inputs."""
        return any(carries(*each) for each in self.known)

    def changed(self, change: Callable[[Tensor, Origin], Tensor]) -> "Call":
        """The same with each tensor changed."""
        place = count()
        changed = mapped(self.inputs, lambda t: change(t, self.origins[next(place)]))
        return replace(self, inputs=changed)

    def sprouted(self, sources: dict[Edge, Why]) -> "Call":
        """The same with a graph that begins at each signal; ``sources`` gets what begins there."""

        def begin(tensor: Tensor, origin: Origin) -> Tensor:
            if not carries(tensor, origin):
                return tensor
            begun = sprouted(tensor)
            sources[edge(begun)] = by_entry(origin.entry, tensor)
            return begun

        return self.changed(begin)

    def exchanged(self, is_moved: Callable[[Tensor], bool], order: Tensor, *, only: bool) -> "Call":
        """The same with some signals, or if they are not the ``only`` ones other tensors, in order.

        What can't move is made equal in all rows, so that no mask, length or target tells them
        apart.
        """

        def value(tensor: Tensor, origin: Origin) -> Tensor:
            if tensor.shape[:1] != (self.size,):
                return tensor
            may_move = is_signal(tensor) or (tensor.dtype == torch.uint8 and tensor.dim() > 2)
            if origin.is_target or (only and not may_move):
                return tensor[:1].expand_as(tensor).contiguous()
            return tensor[order] if is_moved(tensor) else tensor

        return self.changed(value)


def calls(
    module: nn.Module, batch: Any, targets: Sequence[Tensor], path: Path | None = None
) -> Iterator[Call]:
    """The :func:`ways` to run a module on a batch in training, on a few rows and on all of them.

    Targets are given wherever an argument has their name, or any name is taken. All comes also in
    the dtype of the parameters, to which a loop, or Lightning Fabric, may convert it first.
    """
    for network in _networks(module):
        dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), None)
        for inputs in _calls(network, batch, targets, path, with_targets=True):
            for each in few_then_all(network, inputs, batch, targets, path):
                yield each
                if (other := converted(each.inputs, dtype)) is not each.inputs:
                    yield replace(each, inputs=other)


def few_then_all(
    network: Callable[..., Any],
    inputs: Any,
    batch: Any,
    targets: Sequence[Tensor],
    path: Path | None,
) -> Iterator[Call]:
    """Run something on a few rows of what it takes of a batch, or else on all of them."""
    size = len(targets[0])
    known, entry = recognised_input(batch, path), {id(t): at for at, t in located(batch)}
    origins = [
        Origin(entry.get(id(t), ""), _is_among(t, targets), _is_among(t, known))
        for t in tensors(inputs)
    ]
    few = few_rows(inputs, size, ROWS)
    if few is not inputs:
        yield Call(network, few, min(size, ROWS), origins)
    yield Call(network, inputs, size, origins)


def call(network: Callable[..., Any], inputs: Inputs) -> Any:
    """Run a network on a tensor, on arguments in order, or on arguments by name."""
    if isinstance(inputs, Tensor):
        return network(inputs)
    return network(**inputs) if isinstance(inputs, Mapping) else network(*inputs)


def ways(
    module: nn.Module, batch: Any, targets: Sequence[Tensor], path: Path | None = None
) -> Iterator[tuple[nn.Module, Any]]:
    """The ways in which a module's forward pass may take a batch, the likeliest first.

    Args:
        module: Any module.
        batch: What the data loader yields.
        targets: The batch's targets.
        path: Where the batch holds its input; None looks by itself.

    Yields:
        What to run, and on what: arguments in order or by name.
    """
    for network in _networks(module):
        for inputs in _calls(network, batch, targets, path):
            yield network, inputs


def _networks(module: nn.Module) -> list[nn.Module]:
    children = [child for child in module.children() if any(True for _ in child.parameters())]
    is_alone = len(children) == 1 and not list(module.parameters(recurse=False))
    return [module, *children] if is_alone else [module]


def _calls(
    network: nn.Module,
    batch: Any,
    targets: Sequence[Tensor],
    path: Path | None,
    *,
    with_targets: bool = False,
) -> Iterator[Any]:
    signature = inspect.signature(network.forward).parameters.values()
    plain = [p for p in signature if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    needed = [p.name for p in plain if p.default is p.empty]
    held = dict(entries(batch))
    rest = {key: held[key] for key in held if not _holds(held[key], targets)}
    if needed == ["batch"]:
        yield (batch,)
    if is_keyed(batch):
        takes_any = any(p.kind is p.VAR_KEYWORD for p in signature)
        taken = held if takes_any else {p.name for p in plain}
        # outside of training with its targets only if it has to be
        for some in (held, rest) if with_targets else (rest, held):
            named = {key: some[key] for key in some if key in taken}
            if named and set(needed) <= named.keys():
                yield named
    with suppress(ValueError, TypeError):
        if len(needed) < 2:
            yield (find_input(batch, path),)
    yield from _in_order(signature, held, rest)
    # a target may stand among the inputs, too
    inputs = {key: entry for key, entry in held.items() if not _is_target(entry, targets)}
    yield from _in_order(signature, held, inputs)
    yield (batch,)


def _in_order(
    signature: Iterable[inspect.Parameter], held: dict[Any, Any], rest: dict[Any, Any]
) -> Iterator[Any]:
    plain = [p for p in signature if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    needed = [p for p in plain if p.default is p.empty]
    if any(p.kind is p.VAR_POSITIONAL for p in signature):
        yield tuple(rest.values())
    if needed and len(needed) <= len(rest):
        yield tuple(rest.values())[: len(needed)]
    if plain and rest:
        yield tuple(rest.values())[: len(plain)]
    # targets only where they are asked for by name
    if needed and len(rest) < len(needed) <= len(held):
        if all(kind(p.name) in ("target", "mask") for p in needed[len(rest) :]):
            yield tuple(held.values())[: len(needed)]


def carries(tensor: Tensor, origin: Origin) -> bool:
    """Whether a tensor of this origin carries the signal."""
    return is_signal(tensor) and not origin.is_target


def _is_target(entry: Any, targets: Sequence[Tensor]) -> bool:
    return all(_is_among(tensor, targets) for tensor in tensors(entry))


def _holds(entry: Any, targets: Sequence[Tensor]) -> bool:
    return any(_is_among(tensor, targets) for tensor in tensors(entry))


def _is_among(tensor: Tensor, known: Iterable[Tensor]) -> bool:
    return any(tensor is each for each in known)

"""Calls: the ways in which a module's forward may take a batch."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor, nn

from lightning_mmix.core.batch import find_input
from lightning_mmix.core.names import kind
from lightning_mmix.core.trees import Path, describe, entries, tensors
from lightning_mmix.cuts.probe import ROWS, Probe
from lightning_mmix.cuts.rows import few_rows


class NoForwardError(ValueError):
    """A module whose forward pass does not take its batch."""


def probe_on(
    module: nn.Module, batch: Any, targets: Sequence[Tensor], path: Path | None = None
) -> Probe:
    """Probe a module's forward pass on a few samples of a batch.

    The inputs are what the forward's signature asks for: entries of a mapping by name, entries of
    a tuple in order, the recognised input, or the batch as a whole; targets only where they must
    be given. A module without a forward pass of its own is probed at its one child, if that holds
    all parameters.

    Args:
        module: Any module.
        batch: What the data loader yields.
        targets: The batch's targets, of two or more samples.
        path: Where the batch holds its input; None looks by itself.

    Returns:
        A probe that has recorded one forward pass.

    Raises:
        NoForwardError: If no forward pass takes the batch.
    """
    unsure: Probe | None = None
    problem: Exception | None = None
    for network, inputs, size in _attempts(module, batch, targets, path):
        try:
            probe = Probe(module, inputs, size=size, network=network)
        except Exception as error:  # what it is asked to take may not fit
            problem = problem or error
            continue
        if probe.is_batched:
            return probe
        unsure = unsure or probe
    if unsure is not None:
        return unsure
    raise NoForwardError(
        f"the forward pass of {type(module).__name__} can't be tested with the batch, "
        f"{describe(batch)} ({type(problem).__name__}: {problem})"
    )


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


def _attempts(
    module: nn.Module, batch: Any, targets: Sequence[Tensor], path: Path | None
) -> Iterator[tuple[nn.Module, Any, int]]:
    size = len(targets[0])
    for network, inputs in ways(module, batch, targets, path):
        few = few_rows(inputs, size, ROWS)
        if few is not inputs:
            yield network, few, min(size, ROWS)
        yield network, inputs, size


def _networks(module: nn.Module) -> list[nn.Module]:
    children = [child for child in module.children() if _has_parameters(child)]
    is_alone = len(children) == 1 and not list(module.parameters(recurse=False))
    return [module, *children] if is_alone else [module]


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _calls(
    network: nn.Module, batch: Any, targets: Sequence[Tensor], path: Path | None
) -> Iterator[Any]:
    signature = inspect.signature(network.forward).parameters.values()
    plain = [p for p in signature if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    needed = [p.name for p in plain if p.default is p.empty]
    held = dict(entries(batch))
    rest = {key: held[key] for key in held if not _holds(held[key], targets)}
    if needed == ["batch"]:
        yield (batch,)
    if isinstance(batch, Mapping):
        takes_any = any(p.kind is p.VAR_KEYWORD for p in signature)
        taken = held if takes_any else {p.name for p in plain}
        # with its targets only if it has to be
        for some in (rest, held):
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


def _is_target(entry: Any, targets: Sequence[Tensor]) -> bool:
    return all(any(tensor is target for target in targets) for tensor in tensors(entry))


def _holds(entry: Any, targets: Sequence[Tensor]) -> bool:
    return any(tensor is target for tensor in tensors(entry) for target in targets)

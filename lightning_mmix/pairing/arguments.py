"""Arguments: the trees of them that functions get, by the sides of the paired tensors in them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_mmix.batches.names import is_condition
from lightning_mmix.core.kernels import interpolate
from lightning_mmix.pairing.pair import Kind, LatePair, Pair, is_opaque, pair_of
from lightning_mmix.watch.functions import (
    Function,
    carries,
    embeds,
    lengths_of_input,
    reads_value,
    reports_number,
    shape_argument,
    with_noise_to_come,
)
from lightning_mmix.watch.notes import NOTHING, Note
from lightning_mmix.watch.places import is_in_network
from lightning_mmix.watch.watched import entries_of, watched_in

# most arguments, to be told apart from trees in no time
_LEAVES = frozenset([type(None), bool, int, float, complex, str, torch.dtype, torch.device])
_SEQUENCES = (tuple, list)  # a union takes twice the time to ask


def side(tree: Any, index: int) -> Any:
    """A tree of arguments with the first (0) or the second (1) of every paired tensor."""
    if isinstance(tree, Pair):
        return tree[index]
    if isinstance(tree, Tensor):
        pair = pair_of(tree)
        if pair is None:
            return ordinary(tree) if "pair" in vars(tree) else tree
        return ordinary(tree) if is_opaque(tree, pair) else pair[index]
    return _rebuilt(tree, lambda entry: side(entry, index))


def is_paired(value: Any) -> bool:
    """Whether a value is, or holds, a paired tensor of a step that is not over."""
    if isinstance(value, Tensor):
        return pair_of(value) is not None
    return any(pair_of(tensor) is not None for tensor in tensors_in(value))


def paired_in(*trees: Any) -> list[tuple[Tensor, Pair]]:
    """The paired tensors in trees of arguments, with what they carry."""
    found = []
    for tree in trees:
        for tensor in tensors_in(tree):
            pair = pair_of(tensor)
            if pair is not None:
                found.append((tensor, pair))
    return found


def tensors_in(tree: Any) -> list[Tensor]:
    """The tensors in a tree of arguments or results."""
    if isinstance(tree, Tensor):
        return [tree]
    found = []
    for entry in _entries(tree):
        if isinstance(entry, Tensor):
            found.append(entry)
        elif type(entry) not in _LEAVES:
            found += tensors_in(entry)
    return found


def like(sequence: Any, entries: list[Any]) -> Any:
    """A sequence of the same type, also a namedtuple, with other entries."""
    return tuple(entries) if type(sequence) is tuple else _made_like(sequence, entries)


def are_scalars(found: list[tuple[Tensor, Pair]]) -> bool:
    """Whether all paired tensors that were found are single numbers, as losses are."""
    return all(pair.first.ndim == 0 and pair.first.is_floating_point() for _, pair in found)


def are_floating(found: list[tuple[Tensor, Pair]]) -> bool:
    """Whether all paired tensors that were found are floating point, so that they can be mixed."""
    return all(pair.first.is_floating_point() for _, pair in found)


def are_data(found: list[tuple[Tensor, Pair]]) -> bool:
    """Whether all paired tensors that were found are labels, or say of which to take what."""
    kinds = [pair.kind.is_data or pair.first.dtype == torch.bool for _, pair in found]
    return all(kinds) and any(pair.kind.is_data for _, pair in found)


def kind_of(
    func: Function, found: list[tuple[Tensor, Pair]], *, is_opaque: bool, has_rows: bool
) -> Kind:
    """What is known of what a function makes of the paired tensors that were found."""
    is_data = carries(func) and are_data(found)
    is_state = embeds(func) or all(pair.kind.is_state for _, pair in found)
    return Kind(is_opaque, are_scalars(found), is_data, has_rows, is_state)


def entries_met(func: Function, args: Any, kwargs: Any) -> frozenset[str]:
    """The entries of the batch that a function takes along with paired tensors.

    But for what belongs to the input: a network that takes the labels has masks and lengths meet
    what it makes of them, and CTC takes the lengths of what the network puts out.
    """
    own = entries_of(watched_in(lengths_of_input(func, args, kwargs)))
    entries = entries_of(watched_in(args, kwargs)) - own
    are_inner = all(pair.kind.is_state for _, pair in paired_in(args, kwargs)) and is_in_network()
    return frozenset(path for path in entries if not (are_inner and is_condition(path)))


def notes_of(found: list[tuple[Tensor, Pair]]) -> frozenset[Note]:
    """The notes on all paired tensors that were found."""
    return NOTHING.union(*(pair.notes for _, pair in found))


def takes_value(func: Function, pair: Pair) -> bool:
    """Whether a function makes a Python value of a pair, but for a number as people log it."""
    is_number = pair.is_mixed and pair.first.ndim == 0
    return reads_value(func) and not (is_number and reports_number(func))


def have_other_shapes(tensor: Any) -> bool:
    """Whether a tensor is paired and its sides differ in shape, as after a mask of the target."""
    pair = pair_of(tensor) if isinstance(tensor, Tensor) else None
    if pair is None or isinstance(pair, LatePair):
        return False
    return pair.first.shape != pair.second.shape


def looks_at_shapes_only(func: Function, args: Any, kwargs: Any) -> bool:
    """Whether of the one paired argument no more than shape, dtype and device are looked at."""
    position = shape_argument(func)
    if position is None or position >= len(args):
        return False
    pairs = [tensor for tensor, _ in paired_in(args, kwargs)]
    return len(pairs) == 1 and args[position] is pairs[0] and not have_other_shapes(pairs[0])


def ordinary(tree: Any) -> Any:
    """A tree of arguments with the own value of every paired tensor, on its graph."""
    if isinstance(tree, Tensor) and "pair" in vars(tree):
        with torch.enable_grad(), torch._C.DisableTorchFunctionSubclass():
            return tree.as_subclass(Tensor)
    return _rebuilt(tree, ordinary)


def mixes(tree: Any) -> Any:
    """A tree of arguments with the mix of every paired tensor, also of those formed without one."""
    if not isinstance(tree, Tensor):
        return _rebuilt(tree, mixes)
    pair = pair_of(tree)
    if pair is None or pair.is_mixed or not pair.step.fired or is_opaque(tree, pair):
        return ordinary(tree)
    return interpolate(pair.first, pair.second, pair.step.lam)


def on_own_value(func: Function, args: Any, kwargs: Any) -> Any:
    """Call a function on the own values of its arguments."""
    with torch._C.DisableTorchFunctionSubclass():
        return func(*args, **kwargs)


def on_both_sides(func: Function, args: Any, kwargs: Any) -> None:
    """Call a function that writes once with the first sides and once with the second."""
    with_noise_to_come(func, side(args, 0), side(kwargs, 0))
    func(*side(args, 1), **side(kwargs, 1))


def _made_like(sequence: Any, entries: list[Any]) -> Any:
    return getattr(sequence, "_make", type(sequence))(entries)


def _entries(tree: Any) -> Sequence[Any]:
    if isinstance(tree, _SEQUENCES):
        return tree
    if isinstance(tree, Mapping):
        return list(tree.values())
    return (tree.start, tree.stop, tree.step) if isinstance(tree, slice) else ()


def _rebuilt(tree: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(tree, _SEQUENCES):
        return like(tree, [x if type(x) in _LEAVES else change(x) for x in tree])
    if isinstance(tree, dict):
        return {key: x if type(x) in _LEAVES else change(x) for key, x in tree.items()}
    if isinstance(tree, slice):
        return slice(*map(change, (tree.start, tree.stop, tree.step)))
    return tree

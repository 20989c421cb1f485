"""The two sides of a paired tensor, and trees of arguments that hold such tensors."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_mmix.functions import Function, receives
from lightning_mmix.mixing import interpolate
from lightning_mmix.step import Step, become_ordinary


class Pair(NamedTuple):
    """What a paired tensor carries.

    Attributes:
        first: What was computed from y.
        second: What was computed from y[partner].
        step: The step that it belongs to.
        is_opaque: Whether both sides hang on one graph node, the output of an autograd.Function.
    """

    first: Tensor
    second: Tensor
    step: Step
    is_opaque: bool = False


def pair_of(tensor: Tensor) -> Pair | None:
    """The pair that a tensor carries as long as its step is not over."""
    pair: Pair | None = getattr(tensor, "pair", None)
    return None if pair is None or pair.step.closed else pair


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


def paired_in(*trees: Any) -> Iterator[tuple[Tensor, Pair]]:
    """The paired tensors in trees of arguments, with what they carry."""
    for tensor in tensors_in(trees):
        if (pair := pair_of(tensor)) is not None:
            yield tensor, pair


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """The tensors in a tree of arguments or results."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, tuple | list):
        for entry in tree:
            yield from tensors_in(entry)
    elif isinstance(tree, Mapping):
        yield from tensors_in(list(tree.values()))
    elif isinstance(tree, slice):
        yield from tensors_in((tree.start, tree.stop, tree.step))


def like(sequence: Any, entries: list[Any]) -> Any:
    """A sequence of the same type, also a namedtuple, with other entries."""
    return getattr(sequence, "_make", type(sequence))(entries)


def own_value(pair: Pair, *, is_scalar: bool = False) -> Tensor:
    """What code that knows nothing of pairs sees: the mix, or the first where there is none.

    Args:
        pair: The two sides.
        is_scalar: Whether they were computed from numbers that are mixed already, as a loss is:
            such a value is the mix also while gradients are off, so that what is logged is what
            was trained on.
    """
    first, second, step, _ = pair
    if not (first.is_floating_point() or first.is_complex()):
        return first.detach()
    # masked by the target, the sides may differ in shape: only what is made of them can be mixed
    if not (step.is_mixing or (step.fired and is_scalar)) or first.shape != second.shape:
        return first.clone()
    return interpolate(first, second, step.plan.lam)


def are_scalars(*trees: Any) -> bool:
    """Whether all paired tensors in trees of arguments are single numbers, as losses are."""
    return all(
        tensor.ndim == 0 and pair.first.is_floating_point() for tensor, pair in paired_in(trees)
    )


def have_other_shapes(tensor: Any) -> bool:
    """Whether a tensor is paired and its sides differ in shape, as after a mask of the target."""
    pair = pair_of(tensor) if isinstance(tensor, Tensor) else None
    return pair is not None and pair.first.shape != pair.second.shape


def is_opaque(tensor: Tensor, pair: Pair) -> bool:
    """Whether both sides of a paired tensor hang on one graph node."""
    needs_grad = pair.first.requires_grad or pair.second.requires_grad
    return pair.is_opaque or (tensor.requires_grad and not needs_grad)


def ordinary(tree: Any) -> Any:
    """A tree of arguments with the own value of every paired tensor, on its graph."""
    if isinstance(tree, Tensor) and "pair" in vars(tree):
        with torch.enable_grad(), torch._C.DisableTorchFunctionSubclass():
            return tree.as_subclass(Tensor)
    return _rebuilt(tree, ordinary)


def on_own_value(func: Function, args: Any, kwargs: Any) -> Any:
    """Call a function on the own values of its arguments."""
    with torch._C.DisableTorchFunctionSubclass():
        return func(*args, **kwargs)


def communicate(func: Function, args: Any, kwargs: Any) -> Any:
    """Call a collective once, with own values; what it writes into is ordinary from then on."""
    written = args[:1] or kwargs.get("tensor")
    answer = on_own_value(func, ordinary(args), {key: ordinary(kwargs[key]) for key in kwargs})
    if receives(func):
        for tensor, _ in paired_in(written):
            become_ordinary(tensor)
    return answer


def _rebuilt(tree: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(tree, tuple | list):
        return like(tree, [change(entry) for entry in tree])
    if isinstance(tree, dict):
        return {key: change(entry) for key, entry in tree.items()}
    if isinstance(tree, slice):
        return slice(*map(change, (tree.start, tree.stop, tree.step)))
    return tree

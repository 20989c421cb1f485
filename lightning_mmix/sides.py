"""The two sides of a paired tensor, and trees of arguments that hold such tensors."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from lightning_mmix.functions import Function, receives, shape_argument
from lightning_mmix.kernels import interpolate
from lightning_mmix.step import Step, become_ordinary

# most arguments, to be told apart from trees in no time
_LEAVES = frozenset([type(None), bool, int, float, complex, str, torch.dtype, torch.device])
_SEQUENCES = (tuple, list)  # a union takes twice the time to ask


class Pair:
    """What a paired tensor carries.

    Attributes:
        step: The step that it belongs to.
        is_opaque: Whether both sides hang on one graph node, the output of an autograd.Function.
        is_mixed: Whether the tensor's own value is the mix of the sides.
    """

    def __init__(
        self, first: Tensor, second: Tensor, step: Step, *, is_opaque: bool = False
    ) -> None:
        self.step = step
        self.is_opaque = is_opaque
        self.is_mixed = False
        self._sides = (first, second)

    @property
    def first(self) -> Tensor:
        """What was computed from y."""
        return self[0]

    @property
    def second(self) -> Tensor:
        """What was computed from y[partner]."""
        return self[1]

    def __getitem__(self, index: int) -> Tensor:
        return self._sides[index]


class LatePair(Pair):
    """The pair of a number whose own value was computed alone: its sides are, if someone asks.

    Trainers scale, copy and detach each loss, and then look at the mix alone.
    """

    def __init__(self, source: Pair, change: Callable[[Tensor], Tensor]) -> None:
        self.step = source.step
        self.is_opaque = False
        self.is_mixed = True
        self._source = source
        self._change = change
        self._has_graph = torch.is_grad_enabled()
        self._is_settled = False
        self.step.late.append(weakref.ref(self))

    def __getitem__(self, index: int) -> Tensor:
        self.settle()
        return super().__getitem__(index)

    def settle(self) -> None:
        """Compute the sides, unless they were."""
        if not self._is_settled:
            self._is_settled = True
            with torch.set_grad_enabled(self._has_graph):
                self._sides = self._change(self._source[0]), self._change(self._source[1])


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


def own_value(pair: Pair, *, is_scalar: bool = False) -> Tensor:
    """What code that knows nothing of pairs sees: the mix, or the first where there is none.

    Which of them it is, the pair notes.

    Args:
        pair: The two sides.
        is_scalar: Whether they were computed from numbers that are mixed already, as a loss is:
            such a value is the mix also while gradients are off, so that what is logged is what
            was trained on.
    """
    first, second, step = pair.first, pair.second, pair.step
    pair.is_mixed = False
    if not (first.is_floating_point() or first.is_complex()):
        return first.detach()
    # masked by the target, the sides may differ in shape: only what is made of them can be mixed
    if not (step.is_mixing or (step.fired and is_scalar)) or first.shape != second.shape:
        return first.clone()
    pair.is_mixed = True
    return interpolate(first, second, step.plan.lam)


def are_scalars(found: list[tuple[Tensor, Pair]]) -> bool:
    """Whether all paired tensors that were found are single numbers, as losses are."""
    return all(pair.first.ndim == 0 and pair.first.is_floating_point() for _, pair in found)


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


def hooked(tensor: Tensor, hook: Callable[[Tensor], Any]) -> "Handles":
    """Call a hook with each gradient that a paired tensor gets, on whichever way."""
    handles = [side(tensor, index).register_hook(hook) for index in (0, 1)]
    if isinstance(pair_of(tensor), LatePair):  # whose own value was computed beside them
        handles.append(on_own_value(Tensor.register_hook, (tensor, hook), {}))
    return Handles(handles)


class Handles(tuple[RemovableHandle, ...]):
    """The handles of one hook on several tensors."""

    __slots__ = ()

    def remove(self) -> None:
        """Take the hook off all of them."""
        for handle in self:
            handle.remove()


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

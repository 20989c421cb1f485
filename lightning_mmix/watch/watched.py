"""The watched tensor: it knows from which entries of the batch it was computed."""

import weakref
from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from lightning_mmix.core.trees import tensors
from lightning_mmix.watch.functions import Function, is_in_place, may_move_rows
from lightning_mmix.watch.notes import METRIC, Notes
from lightning_mmix.watch.places import is_in_network

_OUTSIDE_GRAPH = (
    "the loss of a mixed target runs outside the graph; compile the network rather than the whole "
    "module, or leave fullgraph=True out"
)
_OF_ORDINARY = (Tensor.__deepcopy__, Tensor.__format__)  # of a subclass they refuse


class Watched(Tensor):
    """A tensor of the batch other than its target, or what was computed from one.

    It is computed with like any other tensor. What a network makes of it is watched only if it has
    no gradient and comes from no input, as weights do that a network takes for its loss.
    """

    entries: frozenset[str]
    notes: Notes

    @classmethod
    def __torch_function__(
        cls, func: Function, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run ``func``, and watch what it gives, unless a paired tensor is in charge."""
        if any(getattr(each, "meets_watched", False) for each in types):
            return NotImplemented
        is_foreign = any(each not in (cls, Tensor, torch.nn.Parameter) for each in types)
        if is_foreign or func in _OF_ORDINARY:
            return func(*plain(args), **plain(kwargs or {}))
        return _run(func, args, kwargs or {})

    def __reduce_ex__(self, protocol: Any) -> Any:
        return plain(self).__reduce_ex__(protocol)


def watch(notes: Notes, entries: Mapping[str, Tensor]) -> None:
    """Watch tensors of a batch until :func:`let_go`, but those that are the same in all rows.

    Args:
        notes: Of the step.
        entries: By their path in the batch, each with a row for each sample.
    """
    for path, tensor in entries.items():
        if type(tensor) is Tensor and _differs(tensor):
            _mark(tensor, notes, frozenset([path]))


def watch_metric(notes: Notes, counted: Any) -> None:
    """Watch what a metric has made of own labels, since a loss that takes it is not exact."""
    _mark_all(tensors(counted), notes, frozenset([METRIC]))


def let_go(notes: Notes) -> None:
    """Make all that was watched ordinary tensors again."""
    while notes.lent:
        tensor = notes.lent.pop()()
        if type(tensor) is Watched:
            let_go_of(tensor)


def let_go_of(tensor: Watched) -> None:
    """Make a watched tensor an ordinary one again."""
    del tensor.entries, tensor.notes
    tensor.__class__ = Tensor  # type: ignore[assignment]  # it is ordinary now


def watched_in(*trees: Any) -> list[Watched]:
    """The watched tensors in trees of arguments."""
    return [tensor for tree in trees for tensor in tensors(tree) if isinstance(tensor, Watched)]


def entries_of(found: Iterable[Watched]) -> frozenset[str]:
    """The entries of the batch from which watched tensors were computed."""
    entries: frozenset[str] = frozenset()
    return entries.union(*(tensor.entries for tensor in found))


def plain(tree: Any) -> Any:
    """A tree of arguments in which no tensor is watched."""
    if isinstance(tree, Watched):
        with torch._C.DisableTorchFunctionSubclass():
            return tree.as_subclass(Tensor)
    if isinstance(tree, tuple | list):
        return getattr(tree, "_make", type(tree))([plain(each) for each in tree])
    return {key: plain(tree[key]) for key in tree} if isinstance(tree, dict) else tree


def outside_graph(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep a function out of graphs; fullgraph=True raises with the reason, from torch 2.8 on."""
    reason = "reason" in signature(torch.compiler.disable).parameters
    disable: Any = torch.compiler.disable  # which has no types
    return disable(function, **{"reason": _OUTSIDE_GRAPH} if reason else {})  # type: ignore[no-any-return]


@outside_graph  # nothing is watched in one
def _run(func: Function, args: Any, kwargs: Any) -> Any:
    found = watched_in(args, kwargs)
    with torch._C.DisableTorchFunctionSubclass():
        result = func(*args, **kwargs)
        if found:
            _follow(func, args, result, found)
    return result


def _follow(func: Function, args: Any, result: Any, found: list[Watched]) -> None:
    notes, entries = found[0].notes, entries_of(found)
    if may_move_rows(func) and isinstance(result, Tensor) and isinstance(args[0], Watched):
        notes.moved(func, args[0], result, args[0].entries)
    if func is torch.autograd.grad:  # a slope is no value of them
        return
    made = [] if is_in_place(func) else [t for t in tensors(result) if type(t) is Tensor]
    if is_in_network():
        if notes.inputs.isdisjoint(entries):  # a loss may lie within
            _mark_all([t for t in made if not t.requires_grad], notes, entries)
        return
    # whatever the rows went with before, such as who was flipped, is theirs
    others = [] if notes.has_fired else [t for t in tensors(args) if _goes_with(t, found[0], notes)]
    _mark_all([*made, *others, *(t._base for t in others if t._is_view())], notes, entries)


def _goes_with(tensor: Tensor, rows: Tensor, notes: Notes) -> bool:
    if type(tensor) is not Tensor or tensor.requires_grad or tensor.shape[:1] != (notes.size,):
        return False
    is_along = tensor.ndim == rows.ndim or tensor.dtype == torch.bool
    if not is_along or rows.shape[:1] != (notes.size,):
        return False
    return _differs(tensor) and not notes.owns(tensor)


def _mark_all(found: Iterable[Any], notes: Notes, entries: frozenset[str]) -> None:
    for tensor in found:
        if type(tensor) is Tensor:
            _mark(tensor, notes, entries)


def _mark(tensor: Tensor, notes: Notes, entries: frozenset[str]) -> None:
    tensor.__class__ = Watched
    tensor.entries, tensor.notes = entries, notes  # type: ignore[attr-defined]  # it is watched now
    notes.lent.append(weakref.ref(tensor))


def _differs(tensor: Tensor) -> bool:
    if tensor.layout is not torch.strided:
        return False
    return bool((tensor != tensor[:1]).any())

"""The paired tensor: it carries two, so that the loss forks while the network runs once."""

import copy
import warnings
import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_mmix.pairing.arguments import (
    entries_met,
    have_other_shapes,
    kind_of,
    like,
    looks_at_shapes_only,
    notes_of,
    on_own_value,
    ordinary,
    paired_in,
    side,
    takes_value,
    tensors_in,
)
from lightning_mmix.pairing.effects import (
    backward,
    communicate,
    copies_of_states,
    count_own,
    differentiate,
    hooked,
    write,
)
from lightning_mmix.pairing.fast import answer_to, scaled
from lightning_mmix.pairing.pair import COMPUTED, Kind, Pair, is_opaque, own_value, pair_of
from lightning_mmix.pairing.partners import choose_alike, keeps_samples, of_partners
from lightning_mmix.pairing.refusals import (
    of_unequal_length,
    on_partners,
    other_sizes,
    refuse_nonlinear,
    refuse_transforms,
)
from lightning_mmix.pairing.step import Step
from lightning_mmix.watch.functions import (
    Function,
    asks_own_value,
    asks_size,
    is_about_itself,
    is_collective,
    is_in_place,
    keeps_statistics,
    may_move_rows,
    only_computes,
    with_noise_to_come,
)
from lightning_mmix.watch.notes import NOTHING, Note
from lightning_mmix.watch.places import is_measuring
from lightning_mmix.watch.watched import Watched, let_go_of, outside_graph, plain, watched_in


def _scales(func: Any) -> Any:
    """A method for what Trainers do with each loss, without the detour by way of torch."""

    def method(self: Tensor, *others: Any, **kwargs: Any) -> Any:
        is_traced = torch.compiler.is_dynamo_compiling()
        answer = None if kwargs or is_traced else scaled(func, self, *others)
        return func(self, *others, **kwargs) if answer is None else _formed(*answer)

    return method


class Paired(Tensor):
    """A tensor that carries two: every torch function of it runs on both and is paired again.

    Its own value, which code that does not know this class and Python numbers see, is the mix
    λ·first + (1 - λ)·second with its graph if it is floating point and was computed, and the first
    if it is not, or is the target itself or a copy. As long as the drawn layer has not run, λ
    counts as 1. A value formed while gradients are off is its first, and remembers its second.
    """

    pair: Pair
    meets_watched = True  # it is asked first
    detach, clone, __truediv__ = map(_scales, (Tensor.detach, Tensor.clone, Tensor.div))

    @classmethod
    def __torch_function__(
        cls, func: Function, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run ``func`` on the first and on the second of every paired argument."""
        if torch.compiler.is_dynamo_compiling():
            return _outside(func, types, args, kwargs or {})
        answer = answer_to(func, args, kwargs or {})
        if answer is not None:
            return _formed(*answer)
        if asks_own_value(func):
            return _tell(func, args, kwargs or {})
        return _run(func, types, args, kwargs or {})

    def backward(self, *args: Any, **kwargs: Any) -> None:
        """Take the gradient of the mix."""
        if not backward(self, *args, **kwargs):
            super().backward(*args, **kwargs)  # type: ignore[no-untyped-call]

    def __copy__(self) -> Tensor:
        return self[...]  # on the same memory

    def __reduce_ex__(self, protocol: Any) -> Any:
        return ordinary(self).__reduce_ex__(protocol)


def become_paired(tensor: Tensor, pair: Pair) -> None:
    """Give an ordinary tensor that its step knows of the class and the sides of a paired one."""
    tensor.__class__ = Paired
    tensor.pair = pair  # type: ignore[attr-defined]  # it is paired now


def _formed(tensor: Tensor, pair: Pair) -> Tensor:
    pair.step.paired.append((weakref.ref(tensor), type(tensor)))
    become_paired(tensor, pair)
    return tensor


@outside_graph
def _outside(func: Function, types: Any, args: Any, kwargs: Any) -> Any:
    return Paired.__torch_function__(func, types, args, kwargs)


def _run(func: Function, types: Any, args: Any, kwargs: Any) -> Any:
    if is_measuring() and not is_in_place(func):
        return count_own(func, args, kwargs)
    if Watched in types and func is not torch.autograd.grad:  # a slope is no value of them
        return _meet(func, args, kwargs)
    return _dispatch(func, args, kwargs)


def _dispatch(func: Function, args: Any, kwargs: Any) -> Any:
    found = paired_in(args, kwargs)
    if not found:
        return on_own_value(func, args, kwargs)
    step = found[0][1].step
    if not only_computes(func):
        answer = _answer(step, func, args, kwargs)
        if answer is not NotImplemented:
            return answer
    refuse_transforms(func, args, kwargs)
    if is_in_place(func) or kwargs.get("out") is not None:
        pair = write(step, func, args, kwargs)
        return args[0] if pair is None else _formed(args[0], pair)
    return _fork(step, copy.deepcopy if func is Tensor.__deepcopy__ else func, args, kwargs)


def _tell(func: Function, args: Any, kwargs: Any) -> Any:
    """Answer about the tensor itself, and note if the partner's answer would be another."""
    pair = pair_of(args[0])
    if pair is not None and pair.step.notes is not None and takes_value(func, pair):
        pair.step.notes.read(func, pair.first, pair.second)
    if func is Tensor.__format__:  # of a subclass it takes no format
        return func(ordinary(args[0]), *args[1:])
    return on_own_value(func, args, kwargs)


def _meet(func: Function, args: Any, kwargs: Any) -> Any:
    """Run a function that takes other entries of the batch, too, and note which."""
    found = watched_in(args, kwargs)
    met = found[0].notes.meeting(func, entries_met(func, args, kwargs))
    if is_in_place(func) and isinstance(args[0], Watched):
        let_go_of(args[0])
    result = Paired.__torch_function__(func, (Paired,), plain(args), plain(kwargs))
    for _, pair in paired_in(result):
        # before the layer has run the partner's own entries were taken
        if pair.step.fired or not pair.kind.has_rows:
            pair.notes |= met
    return result


def _answer(step: Step, func: Function, args: Any, kwargs: Any) -> Any:
    answer = differentiate(step, func, args, kwargs, partial(_zip, step=step, kind=COMPUTED))
    return _ask(func, args, kwargs) if answer is NotImplemented else answer


def _ask(func: Function, args: Any, kwargs: Any) -> Any:
    """Answer what is asked about the tensor itself, or of other processes."""
    if is_collective(func):
        return communicate(func, args, kwargs)
    if func is Tensor.register_hook and not is_opaque(args[0], args[0].pair):
        return hooked(args[0], *args[1:], **kwargs)
    if asks_size(func) and have_other_shapes(args[0]):
        warnings.warn(other_sizes(), stacklevel=4)
    if func.__name__ == "__set__" and is_about_itself(func):
        return on_own_value(func, (args[0], *ordinary(args[1:])), kwargs)
    if is_about_itself(func) or looks_at_shapes_only(func, args, kwargs):
        return on_own_value(func, args, kwargs)
    return NotImplemented


def _fork(step: Step, func: Function, args: Any, kwargs: Any) -> Any:
    found = paired_in(args, kwargs)
    with torch._C.DisableTorchFunctionSubclass():  # the sides alone are computed with
        own, others = side((args, kwargs), 0), side((args, kwargs), 1)
        opaque = any(is_opaque(tensor, pair) for tensor, pair in found)
    first = with_noise_to_come(func, *own)
    if not tensors_in(first):
        if step.notes is not None:
            step.notes.read(func, first, on_partners(func, *others))
        return on_own_value(func, args, kwargs)
    if keeps_statistics(func):  # which are the first's
        others = copies_of_states(step, others[0]), others[1]
    second = on_partners(func, *others)
    if opaque and any(tensor.requires_grad for tensor in tensors_in(first)):
        refuse_nonlinear(func, args)
    return first if first is second else _joined(func, args, found, (first, second), opaque=opaque)


def _joined(
    func: Function, args: Any, found: list[tuple[Tensor, Pair]], sides: Any, *, opaque: bool
) -> Any:
    """Pair what a function has made of both sides."""
    step, (first, second) = found[0][1].step, sides
    rows = keeps_samples(func, args, first, found)
    if rows and not step.fired:
        if choose_alike(func, args, first, second):
            return first
        second = of_partners(func, args, first, second, step.plan.partner)
        if step.notes is not None and may_move_rows(func):
            step.notes.moved(func, side(args[0], 0), first)
    kind = kind_of(func, found, is_opaque=opaque, has_rows=rows)
    return _zip(first, second, step, kind, NOTHING if step.notes is None else notes_of(found))


def _zip(first: Any, second: Any, step: Step, kind: Kind, notes: frozenset[Note] = NOTHING) -> Any:
    """Pair two results, which may be trees of tensors."""
    if first is second:
        return first
    if isinstance(first, Tensor):
        pair = Pair(first, second, step, kind)
        pair.notes = notes
        return _formed(own_value(pair, is_scalar=kind.is_scalar), pair)
    together = partial(_zip, step=step, kind=kind, notes=notes)
    if isinstance(first, Mapping):
        return {key: together(first[key], second[key]) for key in first}
    if isinstance(first, tuple | list):
        if len(first) != len(second):
            raise of_unequal_length(first, second)
        return like(first, list(map(together, first, second)))
    return first

"""The fast way: what most steps do with a target, answered at once and with as little as can be.

``tensor.py`` has the general way, which follows any function, and asks here first. An answer is
what the general way would give, up to rounding; None leaves the call to it, as where the layer has
not run or an argument is no plain tensor.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_mmix.core.kernels import interpolate
from lightning_mmix.core.losses import REDUCTIONS, core_of, cross_entropies, usual_options
from lightning_mmix.pairing.pair import COMPUTED, Kind, LatePair, Pair, is_opaque, own_value
from lightning_mmix.pairing.refusals import on_partners
from lightning_mmix.pairing.step import is_inside_function
from lightning_mmix.watch.functions import Function, is_in_place, is_linear, is_pure, looked_up
from lightning_mmix.watch.places import is_measuring

Answer = tuple[Tensor, Pair]  # an own value, and the pair that it has to carry
Way = Callable[[Function, Any, Any], Answer | None]

_NUMBERS = frozenset([int, float])
_PLAIN = frozenset([Tensor, torch.nn.Parameter])
_LEAVES = frozenset([*_PLAIN, *_NUMBERS, type(None), bool, str, torch.dtype])
_WIDE = (torch.float32, torch.float64)


def answer_to(func: Function, args: Any, kwargs: Any) -> Answer | None:
    """What a function makes of its paired arguments, if there is a fast way.

    Args:
        func: Any function of torch's.
        args: Its arguments.
        kwargs: Its arguments by keyword.
    """
    way = _way(func)
    return None if way is None else way(func, args, kwargs)


@looked_up
def _way(func: Function) -> Way | None:
    if func in _LOSSES:
        return _LOSSES[func]
    if func in (Tensor.detach, Tensor.clone) or (is_linear(func, 0) and not is_in_place(func)):
        return _scaled
    if func.__name__ in ("add", "sub"):
        return _added
    return _forked if is_pure(func) else None


def _scaled(func: Function, args: Any, kwargs: Any) -> Answer | None:
    answer = scaled(func, *args) if args and len(args) < 3 and not kwargs else None
    return _forked(func, args, kwargs) if answer is None and len(args) > 1 else answer


def scaled(func: Function, number: Any, *others: Any) -> Answer | None:
    """Of a number that is mixed already, as a loss is, copied, scaled or shifted, the mix alone.

    Args:
        func: Copies a number, or adds, multiplies or divides by another.
        number: What may be paired.
        others: One Python number, or none.
    """
    is_known = not others or type(others[0]) in _NUMBERS
    pair = _mixed_number(number) if is_known else None
    if pair is None:
        return None
    with torch._C.DisableTorchFunctionSubclass():
        own = func(number, *others)
    return own, LatePair(pair, lambda side: func(side, *others))


def _added(func: Function, args: Any, kwargs: Any) -> Answer | None:
    """Of a sum of two numbers that are mixed already, or of one and another, the mix alone."""
    if len(args) != 2 or kwargs or type(args[1]) in _NUMBERS:
        return _scaled(func, args, kwargs)
    first, second = map(_mixed_number, args)
    if first is None or second is None or first.step is not second.step:
        return _forked(func, args, kwargs)
    with torch._C.DisableTorchFunctionSubclass():
        own = func(*args)
    return own, LatePair(first, func, second)


def _mixed_number(number: Any) -> Pair | None:
    """The pair of a number that is mixed, as a loss is: what is linear may be done to the mix."""
    pair: Pair | None = getattr(number, "pair", None)
    if pair is None or not pair.is_mixed:
        return None
    step = pair.step
    if not step.fired or step.closed or step.side is not None:
        return None
    if torch._C._are_functorch_transforms_active() or is_inside_function():
        return None
    with torch._C.DisableTorchFunctionSubclass():
        is_one = number.ndim == 0 and (type(pair) is LatePair or not is_opaque(number, pair))
    return pair if is_one else None


def _cross_entropy(func: Function, args: Any, kwargs: Any) -> Answer | None:
    """A cross-entropy: only that part of it runs twice which depends on the labels."""
    pair = _target_of(func, args, kwargs)
    if pair is None or kwargs["reduce"] is not None or kwargs["size_average"] is not None:
        return None
    labels, reduction = pair.sides[0], kwargs["reduction"]
    if labels.is_floating_point():
        return _linear(func, args, kwargs)
    is_known = reduction in REDUCTIONS and 0 <= kwargs["label_smoothing"] <= 1
    if labels.ndim >= args[0].ndim or not is_known:
        return None
    return _mixed(pair, *cross_entropies(args[0], pair.sides, kwargs))


def _linear(func: Function, args: Any, kwargs: Any) -> Answer | None:
    """A loss that is linear in its target: that of the mixed target, and its sides if asked for."""
    pair = _target_of(func, args, kwargs)
    if pair is None or not _is_wide(args[0], pair):
        return None
    loss = core_of(func, kwargs)
    return _alone(loss, [args[0], *kwargs.values()], pair, loss(args[0], _mixed_target(pair)))


def _squared(func: Function, args: Any, kwargs: Any) -> Answer | None:
    """λ(p - a)² + (1 - λ)(p - b)² = (p - m)² + λ(1 - λ)(a - b)² with the mixed target m."""
    pair = _target_of(func, args, kwargs)
    if pair is None or not _is_wide(args[0], pair) or not pair.step.lam.is_cpu:
        return None
    prediction, loss, lam = args[0], core_of(func, kwargs), pair.step.lam.item()
    own = loss(prediction, _mixed_target(pair))
    own = torch.add(own, loss(*pair.sides), alpha=lam * (1 - lam))
    return _alone(loss, [prediction, *kwargs.values()], pair, own)


def _mixed_target(pair: Pair) -> Tensor:
    first, second = pair.sides
    pair.step.formed = True
    if type(pair.step.weight) is float:
        return torch.lerp(second, first, pair.step.weight)
    return interpolate(first, second, pair.step.lam)


def _forked(func: Function, args: Any, kwargs: Any) -> Answer | None:
    """Any function that only computes, on both sides."""
    if kwargs and not all(type(value) in _LEAVES for value in kwargs.values()):
        return None
    sides: tuple[list[Any], list[Any]] = ([], [])
    pairs = []
    for argument in args:
        if type(argument) in _LEAVES:
            own = other = argument
        else:
            pair = _plain_pair(argument) if isinstance(argument, Tensor) else None
            if pair is None:
                return None
            pairs.append(pair)
            own, other = pair.sides
        sides[0].append(own)
        sides[1].append(other)
    return _joined(func, pairs, sides, kwargs) if pairs and kwargs.get("out") is None else None


def _joined(func: Function, pairs: list[Pair], sides: Any, kwargs: Any) -> Answer | None:
    step = pairs[0].step
    if step.notes is not None or any(pair.step is not step for pair in pairs) or is_measuring():
        return None
    first, second = func(*sides[0], **kwargs), on_partners(func, sides[1], kwargs)
    if type(first) is not Tensor or first is second:
        return None
    numbers = (pair.first for pair in pairs)
    is_scalar = all(number.ndim == 0 and number.is_floating_point() for number in numbers)
    return _mixed(pairs[0], first, second, is_scalar=is_scalar)


_LOSSES: dict[Function, Way] = {
    F.cross_entropy: _cross_entropy,
    F.binary_cross_entropy: _linear,
    F.binary_cross_entropy_with_logits: _linear,
    F.mse_loss: _squared,
}


def _target_of(func: Function, args: Any, kwargs: Any) -> Pair | None:
    """The pair of the target of a loss, if all else is plain and its sides are mixed now."""
    if len(args) != 2 or type(args[0]) not in _PLAIN:
        return None
    if kwargs != usual_options(func):
        are_plain = all(type(value) in _LEAVES for value in kwargs.values())
        if not are_plain or kwargs.keys() != usual_options(func).keys():
            return None
    return _plain_pair(args[1])


def _plain_pair(tensor: Tensor) -> Pair | None:
    """The pair of a paired tensor that may take the fast way."""
    pair: Pair | None = getattr(tensor, "pair", None)
    if pair is None or pair.kind.is_state or pair.is_opaque or not torch.is_grad_enabled():
        return None
    step = pair.step
    if not step.fired or step.closed or step.side is not None:
        return None
    first, second = pair.sides
    if first.shape != second.shape or first.layout is not torch.strided:
        return None
    if torch._C._are_functorch_transforms_active():
        return None
    if not first.is_floating_point():
        return pair
    with torch._C.DisableTorchFunctionSubclass():
        return None if is_opaque(tensor, pair) else pair


def _is_wide(value: Tensor, pair: Pair) -> bool:
    """Whether a target may be mixed in place of its losses: half precision would round it."""
    first, second = pair.sides
    if first.requires_grad or second.requires_grad or value.shape != first.shape:
        return False
    return first.dtype in _WIDE and value.dtype == first.dtype


def _mixed(source: Pair, first: Tensor, second: Tensor, *, is_scalar: bool = False) -> Answer:
    step = source.step
    pair = Pair(first, second, step, Kind(is_scalar=True) if is_scalar else COMPUTED)
    if source.notes:
        pair.notes = source.notes
    is_mixable = first.is_floating_point() and first.shape == second.shape
    if type(step.weight) is not float or not is_mixable or first.layout is not torch.strided:
        return own_value(pair, is_scalar=is_scalar), pair
    pair.is_mixed = step.formed = True
    return torch.lerp(second, first, step.weight), pair


def _alone(loss: Function, taken: list[Any], source: Pair, own: Tensor) -> Answer:
    """A loss whose own value was computed alone, with its sides to come, of what it has taken."""
    versions = [(each, each._version) for each in taken if isinstance(each, Tensor)]

    def loss_of(side: Tensor) -> Tensor:
        if any(each._version != version for each, version in versions):
            raise ValueError(
                "the prediction, or a weight, was written into after a loss had taken it, and "
                "before both sides of that loss were needed; write into a .clone() of it"
            )
        value: Tensor = loss(taken[0], side)
        return value

    return own, LatePair(source, loss_of)

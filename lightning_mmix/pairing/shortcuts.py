"""Shortcuts: what both sides of a paired tensor share is computed once."""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_mmix.pairing.arguments import on_own_value
from lightning_mmix.pairing.pair import LatePair, is_opaque, pair_of
from lightning_mmix.pairing.refusals import refuse_transforms
from lightning_mmix.watch.functions import Function, is_in_place, is_linear

_COPIES = (Tensor.detach, Tensor.clone)
_NUMBERS = (int, float)
_OF_NLL = ("weight", "ignore_index", "reduction")


def changed_number(func: Function, args: Any, kwargs: Any) -> tuple[Tensor, LatePair] | None:
    """What a call makes of a number that is mixed already, if it only scales or copies it.

    That is linear, so that it may be done to the mix as well as to the sides.

    Args:
        func: Any function of torch's.
        args: Its arguments.
        kwargs: Its arguments by keyword.

    Returns:
        The number's own value, and the pair that it has to carry; None for any other call.
    """
    change = _change(func, args, kwargs)
    if change is None:
        return None
    refuse_transforms(func, args, {})
    return on_own_value(change, args[:1], {}), LatePair(args[0].pair, change)


def equivalent(func: Function, args: Any, kwargs: Any) -> tuple[Function, Any, Any]:
    """A call with the same result that suits both sides better.

    A deep copy is made as each side's own class makes it, and of a cross-entropy with paired labels
    only that part runs twice which depends on them.

    Args:
        func: Any function of torch's.
        args: Its arguments.
        kwargs: Its arguments by keyword.

    Returns:
        Function, arguments and arguments by keyword of a call with the same result.
    """
    if func is Tensor.__deepcopy__:
        return copy.deepcopy, args, kwargs
    if func is not F.cross_entropy or len(args) != 2:
        return func, args, kwargs
    logits, labels = args
    pair = pair_of(labels)
    is_plain = not kwargs["label_smoothing"] and kwargs["reduce"] is kwargs["size_average"] is None
    if not is_plain or pair is None or pair_of(logits) is not None:
        return func, args, kwargs
    if pair.first.is_floating_point() or pair.first.ndim >= logits.ndim:
        return func, args, kwargs
    options = {name: kwargs[name] for name in _OF_NLL}
    return F.nll_loss, (_log_softmax(logits), labels), options


def _change(func: Function, args: Any, kwargs: Any) -> Callable[[Tensor], Tensor] | None:
    if kwargs or not args or not isinstance(args[0], Tensor) or is_in_place(func):
        return None
    others = args[1:]
    is_change = func in _COPIES or (len(others) == 1 and is_linear(func, 0))
    if not is_change or any(type(other) not in _NUMBERS for other in others):
        return None
    return (lambda number: func(number, *others)) if _is_mixed_number(args[0]) else None


def _log_softmax(logits: Tensor) -> Tensor:
    # autocast computes a cross-entropy of half types in float32, but not its parts on every device
    is_half = logits.dtype in (torch.float16, torch.bfloat16)
    if is_half and torch.is_autocast_enabled(logits.device.type):
        logits = logits.float()
    return F.log_softmax(logits, min(1, logits.ndim - 1))


def _is_mixed_number(tensor: Tensor) -> bool:
    pair = pair_of(tensor)
    if pair is None or not pair.is_mixed:
        return False
    with torch._C.DisableTorchFunctionSubclass():
        if tensor.ndim or not pair.step.fired:
            return False
        if isinstance(pair, LatePair):
            return not pair.is_opaque
        return not is_opaque(tensor, pair)

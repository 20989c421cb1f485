"""The paired tensor: it carries two, so that the loss forks while the network runs once."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_mmix.functions import (
    Function,
    is_about_itself,
    is_additive,
    is_in_place,
    is_linear,
    reshapes_in_place,
    same_noise,
    shape_argument,
)
from lightning_mmix.mixing import interpolate
from lightning_mmix.step import Step


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


class Paired(Tensor):
    """A tensor that carries two: every torch function of it runs on both and is paired again.

    Its own value, which code that does not know this class sees, is the mix λ·first +
    (1 - λ)·second with its graph if it is floating point, and the first if it is not. As long as
    the drawn layer has not run, λ counts as 1. A value formed while gradients are switched off is
    its first, and remembers its second. Python numbers come from the own value.
    """

    pair: Pair

    @classmethod
    def __torch_function__(
        cls, func: Function, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run ``func`` on the first and on the second of every paired argument."""
        return _dispatch(func, args, kwargs or {})

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _ordinary(self).__reduce_ex__(protocol)  # type: ignore[no-untyped-call]


def become_paired(tensor: Tensor, pair: Pair) -> None:
    """Give an ordinary tensor, in place, the class and the two sides of a paired one."""
    tensor.__class__ = Paired
    tensor.pair = pair  # type: ignore[attr-defined]  # it is paired now
    pair.step.track(tensor)


def is_paired(value: Any) -> bool:
    """Whether a value is, or holds, a paired tensor of a step that is not over."""
    return next(_pairs(value), None) is not None


# a compiled step forks its loss outside the graph
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _dispatch(func: Function, args: Any, kwargs: Any) -> Any:
    step = next((each.pair.step for each in _pairs(args, kwargs)), None)
    if step is None or is_about_itself(func):
        return _on_own_value(func, args, kwargs)
    if func is Tensor.backward:
        step.went_backward = True
        # not by way of the own value: an autograd.Function's backward still forks
        return func(_ordinary(args[0]), *args[1:], **kwargs)
    if func is Tensor.__iter__:
        return iter(torch.unbind(args[0]))
    if is_in_place(func) or kwargs.get("out") is not None:
        return _write(step, func, args, kwargs)
    if _looks_at_shapes_only(func, args, kwargs):
        return _on_own_value(func, args, kwargs)
    return _fork(step, func, args, kwargs)


def _fork(step: Step, func: Function, args: Any, kwargs: Any) -> Any:
    kwargs_of_first = kwargs
    if func is torch.autograd.grad:
        step.went_backward = True
        kwargs_of_first = {**kwargs, "retain_graph": True}  # both sides hang on one network
    with same_noise(func):
        first = func(*_side(args, 0), **_side(kwargs_of_first, 0))
    second = func(*_side(args, 1), **_side(kwargs, 1))
    if next(_tensors(first), None) is None:
        return _on_own_value(func, args, kwargs)
    opaque = [each for each in _pairs(args, kwargs) if _is_opaque(each)]
    if opaque and any(tensor.requires_grad for tensor in _tensors(first)):
        _refuse_nonlinear(func, args)
    return _zip(first, second, step, bool(opaque))


def _write(step: Step, func: Function, args: Any, kwargs: Any) -> Any:
    written = args[0] if args else None
    if not isinstance(written, Tensor) or "out" in kwargs:
        raise _cannot_pair(func, "into an argument that is not its first")
    if isinstance(written, Paired):
        if reshapes_in_place(func):
            _on_own_value(func, args, kwargs)
        _on_both(func, args, kwargs)
        _refresh(step, written, *written.pair[:2])
    elif step.owns(written):
        func(*_side(args, 0), **_side(kwargs, 0))
    elif written._is_view() or func.__name__ == "__set__":
        raise _cannot_pair(func, "into a view")
    else:
        pair = Pair(written.clone(), written.clone(), step)
        _on_both(func, (pair, *args[1:]), kwargs)
        _refresh(step, written, pair.first, pair.second)
        become_paired(written, pair)
    return written


def _on_both(func: Function, args: Any, kwargs: Any) -> None:
    with same_noise(func):
        func(*_side(args, 0), **_side(kwargs, 0))
    func(*_side(args, 1), **_side(kwargs, 1))


def _refresh(step: Step, own: Tensor, first: Tensor, second: Tensor) -> None:
    # the own value of an integer shares its memory with the first, unless it was ordinary before
    if own.data_ptr() != first.data_ptr():
        _on_own_value(Tensor.copy_, (own, _own_value(step, first, second)), {})


def _own_value(step: Step, first: Tensor, second: Tensor) -> Tensor:
    if not (first.is_floating_point() or first.is_complex()):
        return first.detach()
    # masked by the target, the sides may differ in shape: only what is made of them can be mixed
    if not step.is_mixing or first.shape != second.shape:
        return first.clone()
    return interpolate(first, second, step.plan.lam)


def _zip(first: Any, second: Any, step: Step, is_opaque: bool) -> Any:
    if first is second:
        return first
    if isinstance(first, Tensor):
        own = _own_value(step, first, second)
        become_paired(own, Pair(first, second, step, is_opaque))
        return own
    if isinstance(first, Mapping):
        return {key: _zip(first[key], second[key], step, is_opaque) for key in first}
    if isinstance(first, tuple | list):
        sides = zip(first, second, strict=True)
        return _like(first, [_zip(a, b, step, is_opaque) for a, b in sides])
    return first


def _side(tree: Any, index: int) -> Any:
    if isinstance(tree, Pair):
        return tree[index]
    if isinstance(tree, Paired):
        is_whole = _is_over(tree) or _is_opaque(tree)
        return _ordinary(tree) if is_whole else tree.pair[index]
    if isinstance(tree, tuple | list):
        return _like(tree, [_side(entry, index) for entry in tree])
    if isinstance(tree, dict):
        return {key: _side(entry, index) for key, entry in tree.items()}
    return tree


def _like(sequence: Any, entries: list[Any]) -> Any:
    make = getattr(sequence, "_make", type(sequence))
    return make(entries)


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, tuple | list):
        for entry in tree:
            yield from _tensors(entry)
    elif isinstance(tree, Mapping):
        yield from _tensors(list(tree.values()))


def _pairs(*trees: Any) -> Iterator[Paired]:
    return (t for t in _tensors(trees) if isinstance(t, Paired) and not _is_over(t))


def _is_over(paired: Paired) -> bool:
    return "pair" not in vars(paired) or paired.pair.step.closed


def _is_opaque(paired: Paired) -> bool:
    first, second, _, is_opaque = paired.pair
    with torch._C.DisableTorchFunctionSubclass():
        return is_opaque or (
            paired.requires_grad and not first.requires_grad and not second.requires_grad
        )


def _looks_at_shapes_only(func: Function, args: Any, kwargs: Any) -> bool:
    position = shape_argument(func)
    if position is None or position >= len(args):
        return False
    pairs = list(_pairs(args, kwargs))
    return (
        len(pairs) == 1
        and args[position] is pairs[0]
        and pairs[0].pair.first.shape == pairs[0].pair.second.shape
    )


def _refuse_nonlinear(func: Function, args: Any) -> None:
    positions = [i for i, each in enumerate(args) if is_paired(each)]
    if is_additive(func) or (len(positions) == 1 and is_linear(func, positions[0])):
        return
    raise ValueError(
        f"{func.__name__} takes the output of a custom autograd.Function that was given the "
        "target, which mixes exactly only in sums, means and multiples; compute that loss with "
        "ManifoldMixupMixin or mixed_loss instead"
    )


def _cannot_pair(func: Function, how: str) -> ValueError:
    return ValueError(
        f"{func.__name__} writes what was computed from a mixed target in place {how}, which "
        "cannot be done for its partner; write it out of place, or into a .clone()"
    )


def _ordinary(paired: Paired) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return paired.as_subclass(Tensor)


def _on_own_value(func: Function, args: Any, kwargs: Any) -> Any:
    with torch._C.DisableTorchFunctionSubclass():
        return func(*args, **kwargs)

"""What can't be paired, in words."""

from collections.abc import Sequence
from typing import Any

import torch

from lightning_mmix.core.plan import MixPlan
from lightning_mmix.pairing.arguments import are_floating, paired_in
from lightning_mmix.pairing.step import is_inside_function
from lightning_mmix.watch.functions import Function, is_additive, is_linear
from lightning_mmix.watch.places import current_place

LOSS_OUTSIDE_GRAPH = (
    "the loss of a mixed target runs outside the graph; compile the network rather than the whole "
    "module, or leave fullgraph=True out"
)


def beside_custom_function(func: Function) -> ValueError:
    """The error of a loss by way of an autograd.Function that would not be exact."""
    return ValueError(
        f"{func.__name__} stands next to a custom autograd.Function in the loss, where a mixed "
        "target is exact only if the Function takes the network's output and its result goes "
        "into sums, means and multiples; use ManifoldMixupMixin or mixed_loss instead"
    )


def in_place(func: Function, how: str) -> ValueError:
    """The error of a write that can't be done for both sides."""
    return ValueError(
        f"{func.__name__} writes what was computed from a mixed target in place {how}, which "
        "cannot be done for its partner; write it out of place, or into a .clone()"
    )


def of_unequal_length(first: Sequence[Any], second: Sequence[Any]) -> ValueError:
    """The error of a function that gives more tensors for one side than for the other."""
    return ValueError(
        f"a sample's own label and its partner's give {len(first)} and {len(second)} tensors, "
        "which can't be paired; use ManifoldMixupMixin or mixed_loss instead"
    )


def refuse_nonlinear(func: Function, args: Any, *, by_mixes: bool = False) -> None:
    """Let a value whose sides hang on one graph node only go into what is linear in it.

    Args:
        func: Any function of torch's.
        args: Its arguments.
        by_mixes: Whether it is computed from mixes, which integers have none of.
    """
    positions = [i for i, each in enumerate(args) if paired_in(each)]
    is_exact = is_additive(func) or (len(positions) == 1 and is_linear(func, positions[0]))
    if not is_exact or (by_mixes and not are_floating(paired_in(args))):
        raise beside_custom_function(func)


def refuse_transforms(func: Function, args: Any, kwargs: Any) -> None:
    """Let nothing paired into what would give one gradient for both sides."""
    if torch._C._are_functorch_transforms_active():
        raise under_transform(func)
    if is_inside_function() and func.__name__ not in ("clone", "detach"):
        if any(tensor.requires_grad for tensor, _ in paired_in(args, kwargs)):
            raise beside_custom_function(func)


def under_transform(func: Function) -> ValueError:
    """The error of a loss within torch.func's grad, jacrev, vmap and the like."""
    return ValueError(
        f"{func.__name__} takes a mixed target within a transform of torch.func, which can't "
        "follow it; use torch.autograd.grad, ManifoldMixupMixin or mixed_loss instead"
    )


def other_sizes() -> str:
    """The warning of a size that the target's mask gives, with the line that asks for it."""
    return (
        "the size of a tensor that was masked by the target is not the same for a sample's own "
        f"label and for its partner's; at {current_place()} the first was taken. For an exact loss "
        "keep counts as tensors, for example mask.sum()"
    )


def unused_target(plan: MixPlan) -> ValueError:
    """The error of a training step whose loss does not follow from the paired target."""
    return ValueError(
        f"the hidden state of layer {plan.layer!r} was mixed, but the loss was not: it does not "
        "follow from the batch's target, or by way of a number, an array or a custom kernel; say "
        "where the target is with target=<key, index or path>, or use ManifoldMixupMixin"
    )

"""What can't be paired, in words."""

from collections.abc import Sequence
from typing import Any

from lightning_mmix.functions import Function
from lightning_mmix.plan import MixPlan

LOSS_OUTSIDE_GRAPH = (
    "the loss of a mixed target runs outside the graph; compile the network rather than the whole "
    "module, or leave fullgraph=True out"
)
OTHER_SIZES = (
    "the size of a tensor that was masked by the target is not the same for a sample's own label "
    "and for its partner's; the first was taken. For an exact loss keep counts as tensors, for "
    "example mask.sum()"
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


def under_transform(func: Function) -> ValueError:
    """The error of a loss within torch.func's grad, jacrev, vmap and the like."""
    return ValueError(
        f"{func.__name__} takes a mixed target within a transform of torch.func, which can't "
        "follow it; use torch.autograd.grad, ManifoldMixupMixin or mixed_loss instead"
    )


def unused_target(plan: MixPlan) -> ValueError:
    """The error of a training step whose loss does not follow from the paired target."""
    return ValueError(
        f"the hidden state of layer {plan.layer!r} was mixed, but the loss was not: it does not "
        "follow from the batch's target, or by way of a number, an array or a custom kernel; say "
        "where the target is with target=<key, index or path>, or use ManifoldMixupMixin"
    )

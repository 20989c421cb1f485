"""What can't be paired, in words."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from lightning_mmix.core.checks import first_line
from lightning_mmix.core.layers import takes_hooks
from lightning_mmix.core.trees import describe, entries, first_size, tensors
from lightning_mmix.pairing.arguments import are_floating, paired_in
from lightning_mmix.pairing.step import Step, is_inside_function
from lightning_mmix.watch.functions import Function, is_additive, is_linear
from lightning_mmix.watch.places import current_place

_OTHERWISE = "labels='own', ManifoldMixupMixin or mixed_loss"


def beside_custom_function(func: Function) -> ValueError:
    """The error of a loss by way of an autograd.Function that would not be exact."""
    return ValueError(
        f"{func.__name__} stands next to a custom autograd.Function in the loss, where a mixed "
        "target is exact only if the Function takes the network's output itself, and its result is "
        f"only summed, averaged or scaled; use {_OTHERWISE} instead"
    )


def in_place(func: Function, how: str, instead: str) -> ValueError:
    """The error of a write that can't be done for both sides."""
    return ValueError(
        f"{func.__name__} writes what follows from the target {how}, which can't be done for the "
        f"partner's; {instead}"
    )


def of_unequal_length(first: Sequence[Any], second: Sequence[Any]) -> ValueError:
    """The error of a function that gives more tensors for one side than for the other."""
    return ValueError(
        f"at {current_place()} a sample's own label gives {len(first)} tensors and its partner's "
        f"{len(second)}, so they can't be mixed one by one; use {_OTHERWISE}"
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
        f"follow it; use torch.autograd.grad, {_OTHERWISE} instead"
    )


def other_sizes() -> str:
    """The warning of a size that the target's mask gives, with the line that asks for it."""
    return (
        f"at {current_place()} the size of a tensor is used that was masked by the target, which "
        "is another one for the partner's label, so the loss is not exact; count by a tensor, "
        "mask.sum() in place of len(y[mask])"
    )


def on_partners(func: Function, args: Any, kwargs: Any) -> Any:
    """Call a function on the second sides, after it has worked on the first ones.

    Args:
        func: Any function of torch's.
        args: Its arguments.
        kwargs: Its arguments by keyword.

    Raises:
        ValueError: If it does not work on them, as with a size or position of the first ones.
    """
    try:
        return func(*args, **kwargs)
    except torch.OutOfMemoryError:
        raise
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{func.__name__.strip('_')} at {current_place()} fails for the partner's label, for "
            f"which the loss is computed as well ({first_line(error)}): it takes a size or number "
            f"that was read from the sample's own label; keep that a tensor, or use {_OTHERWISE}"
        ) from None


def refuse_target(target: torch.Tensor, value: torch.Tensor | None = None) -> None:
    """Refuse a target of the batch of which no pair can be made, or that is its input, ``value``.

    Raises:
        ValueError: If it is the input, paired, nested, compressed, or requires a gradient.
    """
    if target is value:
        raise ValueError("the target is the input as well; give the one or the other a .clone()")
    if type(target) is not torch.Tensor and "pair" in vars(target):
        raise ValueError(
            "the target is paired by a step that is not over, so its batch would be mixed twice; "
            "mix a batch by one Mixer, one callback or one plan"
        )
    if target.requires_grad:
        raise ValueError("expected a target without gradient, but got one that requires it")
    if target.is_nested or target.layout not in (torch.strided, torch.sparse_coo):
        dense = "torch.nested.to_padded_tensor(y, -100)" if target.is_nested else "y.to_dense()"
        raise ValueError(
            f"expected a dense target, but got {describe(target)}; make it one in the collate "
            f"function or in on_after_batch_transfer: {dense}"
        )


def no_hidden_state(name: str, output: Any, size: int) -> ValueError:
    """The error of a layer that puts out nothing with a row for each sample.

    Args:
        name: Of the layer.
        output: What it puts out.
        size: B, the number of samples.
    """
    rows = next((n for n in map(first_size, filter(_is_floating, tensors(output))) if n), 0)
    if not rows:
        problem = f"{describe(output)}, and no floating-point hidden state; mix another one"
    elif any(isinstance(part, PackedSequence) for _, part in [("", output), *entries(output)]):
        problem = (
            "a PackedSequence, which has no row for each sample; mix a layer before it, or one "
            "behind pad_packed_sequence"
        )
    elif any(t.dim() == 3 and t.shape[1] == size for t in tensors(output)):  # a sequence
        problem = (
            f"{describe(output)} for {size} samples, which is not batch-first; have the network "
            "put the batch first, by batch_first=True or a transpose, or mix another layer"
        )
    else:
        problem = f"{rows} rows for {size} samples, {_ratio(rows, size)}"
    return ValueError(f"layer {name!r} puts out {problem}")


def _is_floating(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _ratio(rows: int, size: int) -> str:
    if rows > size and rows % size == 0:
        return (
            f"{rows // size} for each (views, copies or domains in one call of the network?); call "
            "it for each of them, or join them and repeat the labels, "
            f"y.repeat({rows // size}), in on_after_batch_transfer, or if the step itself repeats "
            "the batch mix layers=['input']"
        )
    if rows < size:
        return (
            "as where the step cuts up the batch, drops samples, or has another batch; rather take "
            "a smaller batch_size with accumulate_grad_batches, and drop samples in the collate "
            "function or in on_after_batch_transfer"
        )
    return (
        "so that it can't be told whose they are; mix a layer that has a row for each sample "
        "whenever it runs, or bring another batch that runs through it in as many rows"
    )


def passed_on(name: str, module: nn.Module) -> ValueError:
    """The error of a layer that puts out what the loss is differentiated by."""
    inner = [f"{name}.{child}" for child, layer in module.named_children() if takes_hooks(layer)]
    example = f", as {inner[-1]!r} may" if inner else ""
    return ValueError(
        f"layer {name!r} puts out, beside its hidden state, an input that requires a gradient (as "
        "positions do, for forces), which a mixed copy in its place would break; mix a layer that "
        f"puts out its hidden state alone{example}"
    )


def depends_on_target(name: str, output: Any, size: int) -> ValueError:
    """The error of a hidden state that is another for the partner's target.

    Args:
        name: Of the layer.
        output: What it puts out.
        size: B, the number of samples.
    """
    pairs = [pair for _, pair in paired_in(*tensors(output))]
    if any(first_size(pair[index]) != size for pair in pairs for index in (0, 1)):
        return ValueError(
            f"the rows of layer {name!r} were chosen by the target, as by x[keep], and its "
            "partner's target chooses others; drop samples before the training step, in the "
            "collate function or in on_after_batch_transfer"
        )
    return ValueError(
        f"the hidden state of layer {name!r} follows from the target, so it can't be mixed: if the "
        "network takes labels, or inputs made by them, mix layers=['input'] or a layer that runs "
        f"before, or use {_OTHERWISE}; if input and target are cut from one tensor, return two "
        "entries from on_after_batch_transfer, the target a .clone()"
    )


def unused_target(step: Step) -> ValueError:
    """The error of a training step whose loss does not follow from the paired target."""
    reads = [] if step.notes is None else sorted(map(str, step.notes.reads))
    own, other = "no copy or number of it (torch.tensor(y), Variable(y), y.numpy())", "what it uses"
    if reads:
        own, other = f"and no number or array ({' and '.join(reads[:2])})", "the entry that it uses"
    return ValueError(
        f"the hidden state of layer {step.plan.layer!r} was mixed, but the loss was not, since it "
        f"does not use the batch's target: use y itself, {own}, or name {other}, target=<key, "
        "index or path>, or use labels='own' or ManifoldMixupMixin; a loss without labels, as a "
        "GAN's, can't be mixed"
    )


def idle_layer(step: Step) -> ValueError:
    """The error of a step whose targets were pasted, and whose hidden state was not."""
    return ValueError(
        f"layer {step.plan.layer!r} did not run, but the target holds the partner's values in a "
        "box; name layers that run in every step, or if the model is compiled make its gates first"
    )

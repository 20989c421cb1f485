"""Where a batch holds its target and its input."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from lightning_mmix.batches.names import kind
from lightning_mmix.batches.search import (
    are_packed,
    is_plain_pair,
    one_of,
    one_tensor,
    refuse_one_each,
    search_targets,
)
from lightning_mmix.core.trees import Path, describe, entries, first_size, follow, is_keyed, tensors

_PAD = "; pad it in the collate function: torch.nested.to_padded_tensor(y, -100)"
_EACH = ", without rows; give each sample a value of its own"
INPUT_KEYS = ("image", "x", "input", "inputs", "pixel_values")


def find_targets(
    batch: Any, paths: Path | Sequence[Path] | None = None, *, along: bool = True
) -> list[Tensor]:
    """The target tensors of a batch.

    Args:
        batch: What the data loader yields.
        paths: Where the targets are: a key, an index, or a dotted path such as ``"1.labels"``;
            a path to a container means all tensors in it. None looks by itself: the second of a
            pair, else the one entry of a mapping, dataclass or namedtuple whose name says so, such
            as ``label``; all tensors there with as many rows as the input, and those of other
            entries that go along with it.
        along: Whether to look for those others as well: the target's length, mask or weight.

    Returns:
        The batch's own tensors, all with the same first dimension.

    Raises:
        ValueError: If there is no target, none is found, more than one may be meant, what is found
            may be something else, or they are not one row, or one row each, for each sample.
        TypeError: If what is found is no tensor.

    Example:
        >>> batch = {"image": torch.zeros(2, 3, 8, 8), "label": torch.tensor([4, 9])}
        >>> find_targets(batch)
        [tensor([4, 9])]
    """
    inputs = _inputs_alone(batch)
    if inputs and _lacks_target(batch, paths, inputs):
        raise _no_target(batch, len(inputs))
    targets = search_targets(batch, along=along) if paths is None else _named(batch, paths)
    _refuse_other_rows(batch, targets)
    return targets


def find_input(batch: Any, path: Path | None = None) -> Tensor:
    """The input tensor of a batch.

    Args:
        batch: What the data loader yields.
        path: As for the target. None looks by itself: the first of a pair, else the one entry
            that is called image, x, input, inputs or pixel_values, else the one whose name says
            that it is an input.

    Returns:
        The batch's own tensor.

    Raises:
        ValueError: If no input is found or more than one may be meant.
        TypeError: If what is found is no tensor.

    Example:
        >>> find_input({"image": torch.zeros(2, 3, 8, 8), "label": torch.tensor([4, 9])}).shape
        torch.Size([2, 3, 8, 8])
    """
    if path is not None:
        return one_tensor(follow(batch, path, "input"), batch, "input")
    if is_plain_pair(batch):
        return batch[0]  # type: ignore[no-any-return]  # a tensor
    held = dict(entries(batch))
    likely = [key for key in INPUT_KEYS if key in held] or [
        key
        for key, entry in held.items()
        if kind(key) == "input" and any(True for _ in tensors(entry))
    ]
    if not likely and isinstance(batch, tuple | list) and len(batch) == 2:
        likely = [*held][:1]
    return one_tensor(held[one_of(likely, batch, "input")], batch, "input")


def recognised_input(batch: Any, path: Path | None = None) -> list[Tensor]:
    """The input tensor of a batch, alone in a list; none if it is not found by itself.

    Args:
        batch: What the data loader yields.
        path: As for :func:`find_input`.
    """
    with suppress(ValueError, TypeError):
        return [find_input(batch, path)]
    return []


def find_mixable_input(batch: Any, path: Path | None = None) -> Tensor:
    """The input tensor of a batch, which must be floating point.

    Args:
        batch: What the data loader yields.
        path: As for :func:`find_input`.

    Returns:
        The batch's own tensor.

    Raises:
        TypeError: If it is integer or boolean, as token ids are.
    """
    value = find_input(batch, path)
    if value.is_floating_point():
        return value
    raise TypeError(
        f"expected a floating-point input to mix, but got {describe(value)}; "
        "mix the layer that embeds it instead"
    )


def written(places: Iterable[str]) -> str:
    """Places in a batch, as a reader knows them: an index in brackets, a key or path as it is.

    Args:
        places: Dotted paths.

    Example:
        >>> written(["1", "labels", "1.labels"])
        'batch[1], labels, 1.labels'
    """
    return ", ".join(f"batch[{place}]" if place.isdecimal() else place for place in places)


def is_box_table(target: Tensor, size: int) -> bool:
    """Whether each row of a target is a box, as (index, class, x, y, w, h), or the like of one.

    Args:
        target: Of a batch.
        size: B, the number of samples.

    Returns:
        Whether it is floating point, of shape (M, 4) to (M, 7), with sorted whole numbers in [0, B)
        in its first column; of M = B rows, three at least, 0, 1, 2 …: labels may be sorted, too.
    """
    is_table = target.dim() == 2 and target.layout is torch.strided
    if not is_table or not target.is_floating_point() or not 4 <= target.shape[1] <= 7:
        return False
    first = target[:, 0].tolist()
    if len(first) == size:
        return size > 2 and first == [*range(size)]
    return first == sorted(first) and {*first} <= {*range(size)}


def _inputs_alone(batch: Any) -> list[Tensor]:
    """The inputs of a batch that holds these, and what goes along with them, and nothing else."""
    if isinstance(batch, Tensor):
        return [batch]
    if type(batch) in (tuple, list):
        return _inputs_alone(batch[0]) if len(batch) == 1 else []
    held = dict(entries(batch))
    if not {kind(key) for key in held} <= {"input", "condition", "loss"}:
        return []
    return list(tensors([entry for key, entry in held.items() if kind(key) == "input"]))


def _lacks_target(batch: Any, paths: Path | Sequence[Path] | None, inputs: list[Tensor]) -> bool:
    """Whether of a batch of inputs alone nothing is named, or the only one, or what it lacks."""
    if paths is None or len(inputs) > 1:
        return paths is None
    with suppress(ValueError, TypeError):
        return any(target is inputs[0] for target in _named(batch, paths))
    return True


def _no_target(batch: Any, count: int) -> ValueError:
    copied, target = "return (x, x.clone())", "1"
    if count > 1:
        return ValueError(
            f"the batch, {describe(batch)}, holds inputs alone; if the loss takes one as the "
            "target, name it, or a copy that on_after_batch_transfer adds: target=<key, index or "
            "path>; GANs and views can't be mixed"
        )
    if is_keyed(batch):
        key = next(key for key, _ in entries(batch) if kind(key) == "input")
        copied, target = f"set batch['labels'] = batch[{key!r}].clone()", "'labels'"
    return ValueError(
        f"the batch, {describe(batch)}, holds no target; an autoencoder's or language model's is a "
        f"copy of its input: {copied} in on_after_batch_transfer, say target={target}, and take "
        "the loss of the copy; GANs and views can't be mixed"
    )


def _named(batch: Any, paths: Path | Sequence[Path]) -> list[Tensor]:
    listed = [paths] if isinstance(paths, str | int) else paths
    found = [leaf for path in listed for leaf in _tensors_at(batch, path)]
    return list({id(leaf): leaf for leaf in found}.values())


def _tensors_at(batch: Any, path: Path) -> list[Tensor]:
    found = follow(batch, path, "target")
    refuse_one_each(found, next((first_size(each) for each in tensors(batch)), None))
    return list(tensors(found)) or [one_tensor(found, batch, "target")]


def _refuse_other_rows(batch: Any, targets: list[Tensor]) -> None:
    """Refuse targets that don't have a row for each sample."""
    sizes = {first_size(each) for each in (*islice(tensors(batch), 1), *targets)}
    if len(sizes) == 1 and None not in sizes:
        return
    if without := [target for target in targets if first_size(target) is None]:
        raise _misshapen(describe(without[0]) + (_PAD if without[0].is_nested else _EACH))
    if are_packed(targets, list(tensors(batch))):
        advice = ", laid end to end with their lengths; pad them to (B, T) in the collate function"
        raise _misshapen(_shapes(targets) + advice)
    if len({first_size(target) for target in targets}) != 1:
        advice = "; name those with a row for each sample, and pad or stack what differs"
        raise _misshapen(f"{_shapes(targets)}, not of one B{advice}")
    size = next((first_size(each) for each in tensors(batch) if each.dim() > 3), None)
    # values are read where the shape is odd: elsewhere that would only wait for a device
    odd = [target for target in targets if size is not None and len(target) != size]
    if any(is_box_table(target, size or 0) for target in odd):
        advice = f" for {size} images, a row a box; pad them to (B, M, ...), so that each image has"
        raise _misshapen(f"{describe(odd[0])}{advice} its own, or train without ManifoldMixup")


def _misshapen(what: str) -> ValueError:
    return ValueError(f"expected targets of shape (B, ...), but got {what}")


def _shapes(targets: list[Tensor]) -> str:
    more = ["…"] if len(targets) > 3 else []
    return ", ".join([str(tuple(target.shape)) for target in targets[:3]] + more) or "none"

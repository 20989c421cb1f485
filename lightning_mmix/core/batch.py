"""Where a batch holds its target and its input."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor
from torch.utils.data import BatchSampler, DistributedSampler

from lightning_mmix.core.names import kind
from lightning_mmix.core.search import (
    is_plain_pair,
    one_of,
    one_tensor,
    refuse_one_each,
    search_targets,
)
from lightning_mmix.core.trees import Path, describe, entries, follow, tensors

INPUT_KEYS = ("image", "x", "input", "inputs", "pixel_values")


def find_targets(
    batch: Any, paths: Path | Sequence[Path] | None = None, *, along: bool = True
) -> list[Tensor]:
    """The target tensors of a batch.

    Args:
        batch: What the data loader yields.
        paths: Where the targets are: a key, an index, or a dotted path such as ``"1.labels"``;
            a path to a container means all tensors in it. None looks by itself: the second of a
            pair, else the one entry of a mapping, dataclass or namedtuple whose name says so, as
            :func:`~lightning_mmix.core.names.kind` reads it; all tensors there with as many rows
            as the input, and those of other entries that go along with it.
        along: Whether to look for those others as well: the target's length, mask or weight.

    Returns:
        The batch's own tensors, all with the same first dimension.

    Raises:
        ValueError: If no target is found, more than one may be meant, what is found may be
            something else, or their lengths differ.
        TypeError: If what is found is no tensor.
    """
    if paths is None:
        targets = search_targets(batch, along=along)
    else:
        listed = [paths] if isinstance(paths, str | int) else paths
        found = [leaf for path in listed for leaf in _tensors_at(batch, path)]
        targets = list({id(leaf): leaf for leaf in found}.values())
    size = targets[0].shape[:1] if targets else ()
    if not size or any(target.shape[:1] != size for target in targets):
        shapes = ", ".join(str(tuple(t.shape)) for t in targets) or "none"
        raise ValueError(f"expected targets of shape (B, ...) with one B, but got {shapes}")
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


def num_unrepeated(loader: Any, batch_idx: int, size: int) -> int:
    """How many samples of an evaluation batch are no repetition by a distributed sampler.

    A distributed sampler repeats samples at the end, so that all processes get equally many.

    Args:
        loader: The process's DataLoader.
        batch_idx: The batch's position in it.
        size: B, the number of samples.

    Returns:
        In [0, B]; the batch's first so many samples count. All of them if the loader isn't a
        DataLoader that takes its batches in order from a distributed sampler.
    """
    batches = getattr(loader, "batch_sampler", None)
    sampler = getattr(batches, "sampler", None)
    # batches of another kind may hold the samples in another order
    if type(batches) is not BatchSampler or not isinstance(sampler, DistributedSampler):
        return size
    total = len(sampler.dataset)  # type: ignore[arg-type]  # it was asked before
    own = len(range(sampler.rank, total, sampler.num_replicas))
    return max(0, min(size, own - batch_idx * batches.batch_size))


def first_loader(loaders: Any) -> Any:
    """The first of a Trainer's evaluation loaders, which may be one or a collection."""
    nested = [loader for _, loader in entries(loaders)]
    return nested[0] if nested else loaders


def _tensors_at(batch: Any, path: Path) -> list[Tensor]:
    found = follow(batch, path, "target")
    refuse_one_each(found)
    return list(tensors(found)) or [one_tensor(found, batch, "target")]

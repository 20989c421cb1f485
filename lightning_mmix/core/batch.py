"""Where a batch holds its target and its input."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import BatchSampler, DistributedSampler

from lightning_mmix.core.trees import Path, describe, entries, follow, tensors

TARGET_KEYS = ("label", "labels", "target", "targets", "y", "mask")
INPUT_KEYS = ("image", "x", "input", "inputs", "pixel_values")


def find_targets(batch: Any, paths: Path | Sequence[Path] | None = None) -> list[Tensor]:
    """The target tensors of a batch.

    Args:
        batch: What the data loader yields.
        paths: Where the targets are: a key, an index, or a dotted path such as ``"1.labels"``;
            a path to a container means all tensors in it. None looks by itself: the second of a
            pair, else the one entry of a mapping, dataclass or namedtuple that is called
            label, labels, target, targets, y or mask.

    Returns:
        The batch's own tensors, all with the same first dimension.

    Raises:
        ValueError: If no target is found, more than one may be meant, or their lengths differ.
        TypeError: If what is found is no tensor.
    """
    if paths is None:
        targets = [_tensor(_find(batch, "target", TARGET_KEYS, 1), batch, "target")]
        _refuse_shared(batch, targets)  # of one that was named a gate sees if the network takes it
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
            that is called image, x, input, inputs or pixel_values.

    Returns:
        The batch's own tensor.

    Raises:
        ValueError: If no input is found or more than one may be meant.
        TypeError: If what is found is no tensor.
    """
    found = _find(batch, "input", INPUT_KEYS, 0) if path is None else follow(batch, path, "input")
    return _tensor(found, batch, "input")


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


def _find(batch: Any, what: str, keys: tuple[str, ...], position: int) -> Any:
    named = {} if type(batch) in (tuple, list) else dict(entries(batch))
    candidates = [key for key in keys if key in named]
    if len(candidates) == 1:
        return named[candidates[0]]
    # a pair is told by its type: three labels in a row are no (x, y, weight)
    if not candidates and isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[position]
    problem = f"{' or '.join(candidates)} may be the" if candidates else "there is no recognisable"
    raise ValueError(
        f"{problem} {what} in the batch, {describe(batch)}; say which: {what}=<key, index or path>"
    )


def _refuse_shared(batch: Any, targets: list[Tensor]) -> None:
    held = list(tensors(batch))
    for target in targets:
        if sum(tensor is target for tensor in held) > 1:
            raise ValueError(
                f"the target stands at two places of the batch, {describe(batch)}; if it is the "
                "input as well, give the batch a .clone() of it"
            )


def _tensors_at(batch: Any, path: Path) -> list[Tensor]:
    found = follow(batch, path, "target")
    if isinstance(found, tuple | list) and any(isinstance(part, Mapping) for part in found):
        raise TypeError(
            f"expected targets of shape (B, ...), but got {describe(found)}, a mapping for each "
            "sample; stack them"
        )
    return list(tensors(found)) or [_tensor(found, batch, "target")]


def _tensor(found: Any, batch: Any, what: str) -> Tensor:
    if isinstance(found, Tensor):
        return found
    raise TypeError(
        f"expected a tensor as {what}, but got {describe(found)} in the batch, {describe(batch)}; "
        f"say where it is: {what}=<key, index or path>"
    )

"""Data loaders: which one of several, and which of its samples are no repetition."""

from typing import Any

from torch.utils.data import BatchSampler, DistributedSampler

from lightning_mmix.core.trees import entries


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
    return next((loader for _, loader in entries(loaders)), loaders)

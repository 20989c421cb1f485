"""What the mix alone takes, forward and backward."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks import loops
from benchmarks.lanes import Effort, Lane, race
from lightning_mmix import mix

Row = dict[str, Any]


def operation(device: str, sizes: Sequence[tuple[int, int]], effort: Effort) -> list[Row]:
    """The mix alone, forward and backward, over two clones.

    On a GPU it is the device's time, of a graph that is replayed: the host is behind by then.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        sizes: Bytes of a hidden state, and its samples.
        effort: How long each race goes on.
    """
    rows = []
    for size, samples in sizes:
        hidden = torch.randn(samples, size // (4 * samples), device=device, requires_grad=True)
        partner, gradient = torch.randperm(samples, device=device), torch.randn_like(hidden)
        is_gpu = device == "cuda"
        turns = max(8, min(256, 2**28 // size)) if is_gpu else max(1, 2**24 // size)
        at_once, steps = (turns, 1) if is_gpu else (1, turns)
        there_and_back = partial(_there_and_back, hidden, gradient, at_once if is_gpu else 0)
        clones = there_and_back(_Clone.apply)
        ours = there_and_back(partial(mix, lam=0.7, partner=partner))
        usual = there_and_back(partial(loops.mix_as_usual, lam=0.7, partner=partner))
        some = effort if size < 2**25 else replace(effort, rounds=1 + effort.rounds // 3)
        both = race(clones, {"ours": ours, "usual": usual}, some, steps=steps)
        over_ours = race(ours, {"usual": usual}, some, steps=steps)["usual"]
        rows.append(
            {
                "bytes": size,
                "samples": samples,
                "clones_us": 1e6 * median(both["ours"].base) / at_once,
                **{name: asdict(course.ratio) for name, course in both.items()},
                "usual_over_ours": asdict(over_ours.ratio),
            }
        )
    return rows


class _Clone(torch.autograd.Function):
    """One read, one write and a fresh buffer, in each direction."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor) -> Tensor:  # noqa: ARG004 - torch's signature
        return hidden.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004 - torch's signature
        return gradient.clone()


def _there_and_back(
    hidden: Tensor, gradient: Tensor, times: int, change: Callable[[Tensor], Tensor]
) -> Lane:
    """A lane of a change and of its backward pass; ``times`` of both in a graph of the GPU's."""

    def lane() -> object:
        return torch.autograd.grad(change(hidden), hidden, gradient)

    if not times:
        return lane
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        lane()  # what is compiled or allocated once can't be captured
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            lane()
    return graph.replay

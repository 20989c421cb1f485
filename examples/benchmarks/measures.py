"""What is measured of a training step, as rows of plain values."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from statistics import median
from typing import Any

import torch
from torch._dynamo import config
from torch._dynamo.utils import counters

from benchmarks import loops
from benchmarks.counts import waits
from benchmarks.lanes import Course, Effort, Lane, Spread, race
from benchmarks.workloads import Workload

Row = dict[str, Any]

NONE, OURS = "Lightning", "Lightning + ManifoldMixup"


def steps(work: Workload, device: str, effort: Effort) -> list[Row]:
    """A step of each way to train over one of the same framework without mixing.

    The rounds of all layers together tell the cost of a training more exactly than those of each,
    since a layer is drawn anew in every step.
    """
    layer = work.layer
    in_a_loop: dict[str, Lane] = {
        "mixing": loops.with_mixing(work, device, layer),
        "usual form": loops.usual(work, device, layer),
        "torchvision MixUp": loops.torchvision_mixup(work, device),
        "timm Mixup": loops.timm_mixup(work, device),
    }
    in_lightning: dict[str, Lane] = {
        f"ManifoldMixup at {name}": loops.lightning(work, device, loops.ours(name))
        for name in work.layers
    }
    mixin = loops.lightning(work, device, loops.ours(layer), module=loops.MixinNet)
    in_lightning["mixin"] = mixin
    in_torchbearer = {"ManifoldMixup": loops.bearer(work, device, layer)}
    frameworks = {
        "loop": (loops.raw(work, device), in_a_loop),
        "torchbearer": (loops.bearer(work, device), in_torchbearer),
        "Lightning": (loops.lightning(work, device, []), in_lightning),
    }
    rows = []
    for framework, (base, lanes) in frameworks.items():
        courses = dict(race(base, lanes, effort))
        if lanes is in_lightning:
            any_layer = [courses[f"ManifoldMixup at {name}"] for name in work.layers]
            courses["ManifoldMixup at any of them"] = Course.together(any_layer)
        rows += [row(c, f"{framework} + {name}", framework, work) for name, c in courses.items()]
    return rows


def half_steps(work: Workload, device: str, effort: Effort) -> list[Row]:
    """A step of Lightning in bfloat16 with the callback over one without."""
    return [compared(work, device, effort, precision="bf16-mixed")]


def compiled_steps(work: Workload, device: str, effort: Effort) -> list[Row]:
    """The same for a compiled network, with the numbers of graphs and of recompilations."""
    torch.compiler.reset()
    counters.clear()
    ours = loops.lightning(work, device, loops.ours(list(work.layers)), compiled=True)
    for _ in range(8 * len(work.layers)):
        ours()
    graphs = counters["stats"]["unique_graphs"]
    none = loops.lightning(work, device, [], compiled=True)
    with config.patch(skip_nnmodule_hook_guards=True):  # as it is where nobody has hooks
        none()
    race(none, {OURS: ours}, Effort(3))
    before = counters["stats"]["unique_graphs"]
    course = race(none, {OURS: ours}, effort)[OURS]
    recompiled = counters["stats"]["unique_graphs"] - before
    return [
        {
            **row(course, OURS, NONE, work),
            "layers": len(work.layers),
            "graphs": graphs,
            "recompiled": recompiled,
            "breaks": sum(counters["graph_break"].values()),
            "waits": [waits(none, device), waits(ours, device)],
        }
    ]


def batches(work: Workload, device: str, sizes: Sequence[int], effort: Effort) -> list[Row]:
    """A step of Lightning with the callback over one without, for batches of several sizes."""
    resized = [replace(work, shape=(size, *work.shape[1:])) for size in sizes]
    return [{"batch": each.shape[0], **compared(each, device, effort)} for each in resized]


def compared(work: Workload, device: str, effort: Effort, **options: Any) -> Row:
    """A step of Lightning with the callback over one without.

    Args:
        work: The network and its batch.
        device: ``"cpu"`` or ``"cuda"``.
        effort: How long each race goes on.
        options: Of the Trainer.
    """
    none = loops.lightning(work, device, [], **options)
    ours = loops.lightning(work, device, loops.ours(work.layer), **options)
    return row(race(none, {OURS: ours}, effort)[OURS], OURS, NONE, work)


def row(course: Course, way: str, over: str, work: Workload) -> Row:
    """What a course says of a way to train."""
    return {
        "network": work.name,
        "rounds": len(course.lane),
        "way": way,
        "over": over,
        "base_ms": 1e3 * median(course.base),
        "ratio": asdict(course.ratio),
        "added_ms": _scaled(course.added, 1e3),
    }


def _scaled(spread: Spread, factor: float) -> dict[str, float]:
    return {name: factor * value for name, value in asdict(spread).items()}

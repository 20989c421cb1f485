"""What is measured of a training step, as rows of plain values."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch._dynamo import config
from torch._dynamo.utils import counters

from benchmarks import loops
from benchmarks.counts import waits
from benchmarks.lanes import Course, Effort, Lane, Spread, race
from benchmarks.workloads import CLASSES, Workload, empty
from lightning_mmix import ManifoldMixup
from lightning_mmix.batches import find_targets
from lightning_mmix.core import Recipe, draw
from lightning_mmix.pairing import Gates, Step

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


def fixed(device: str, numbers: Sequence[int], effort: Effort) -> list[Row]:
    """The cost of a step in a network that does nothing, with some numbers of layers.

    What the callback's own hooks take is timed in the place where they run, after a step has
    emptied the processor's caches, and what they do also alone, again and again; what is added to
    the whole step holds, too, what the loss and Lightning do with them.
    """
    rows = []
    for number in numbers:
        names = tuple(f"layer{i + 1}" for i in range(number))
        work = Workload("empty", partial(empty, number), (128, CLASSES), names, names[0])
        watched = _Watched([f"net.{name}" for name in names])
        lane = loops.lightning(work, device, [watched])
        course = race(loops.lightning(work, device, []), {OURS: lane}, effort, warm=20, steps=20)[
            OURS
        ]
        rows.append(
            {
                "layers": number,
                "none_us": 1e6 * median(course.base),
                "added_us": _scaled(course.added, 1e6),
                "hooks_us": _scaled(Spread.of(watched.seconds[20:]), 1e6),
                "alone_us": _scaled(_alone(work, device), 1e6),
            }
        )
    return rows


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


def _alone(work: Workload, device: str) -> Spread:
    """The seconds that it takes to draw, arm, pair, and disarm."""
    model, batch = work.network(device), work.batch(device)
    gates, recipe = Gates(model, work.layers), Recipe(loops.ALPHA, dict.fromkeys(work.layers, 1.0))
    seconds = []
    for batch_idx in range(1000):
        start = perf_counter()
        target = find_targets(batch)[0]
        plan = draw(recipe, len(target), seed=0, batch_idx=batch_idx)
        assert plan is not None
        gates.arm(Step(plan.to(target.device), model), [target])
        gates.disarm()
        seconds.append(perf_counter() - start)
    gates.remove()
    return Spread.of(seconds)


class _Watched(ManifoldMixup):
    """The callback, with the time that its hooks take in each step."""

    def __init__(self, layers: list[str]) -> None:
        super().__init__(loops.ALPHA, layers, stop=1.0)
        self.seconds: list[float] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        start = perf_counter()
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self.seconds.append(perf_counter() - start)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        start = perf_counter()
        super().on_before_backward(trainer, pl_module, loss)
        self.seconds[-1] += perf_counter() - start

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        start = perf_counter()
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self.seconds[-1] += perf_counter() - start


def _scaled(spread: Spread, factor: float) -> dict[str, float]:
    return {name: factor * value for name, value in asdict(spread).items()}

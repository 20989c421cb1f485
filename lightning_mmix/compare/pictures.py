"""The pictures of a comparison: from the results of its runs to figures by name."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_mmix.compare.runs.task import Results, Run
from lightning_mmix.plots.curves import Curve, robustness_curves
from lightning_mmix.plots.diagrams import (
    interpolations,
    reliability_diagram,
    spectrum,
    training_curves,
)

_MOST_CURVES = 4


def pictures(results: Results) -> Iterator[tuple[str, Figure]]:
    """All that the results allow, as (file name, figure)."""
    runs = [run for each in results.values() for run in each]
    if curves := _histories(results):
        yield "training.png", training_curves(curves)
    if any("unmeasured" in run for run in runs):
        return
    yield "reliability.png", _reliability(results)
    if rows := _robustness(results):
        yield "robustness.png", robustness_curves(rows, "accuracy (%)")
    for layer in _shared(runs, "spectrum"):
        values = {
            arm: _mean([run["spectrum"][layer] for run in each]) for arm, each in results.items()
        }
        yield f"spectrum-{layer}.png", spectrum(values)
    if layers := _shared(runs, "interpolation"):
        lam = torch.tensor(runs[0]["interpolation"][layers[0]]["lam"])
        paths = {
            layer: {
                arm: _mean([run["interpolation"][layer]["confidence"] for run in each])
                for arm, each in results.items()
            }
            for layer in layers
        }
        yield "interpolation.png", interpolations(lam, paths)


def _reliability(results: Results) -> Figure:
    """Bins of all seeds together; ECE and gap are means over seeds."""
    bins = {
        arm: torch.tensor([run["bins"] for run in each]).sum(0) for arm, each in results.items()
    }
    notes = {}
    for arm, each in results.items():
        ece, gap = (_mean([run["clean"][name] for run in each]) for name in ("ece", "gap"))
        notes[arm] = f"ECE {100 * ece:.1f} %\ngap {100 * gap:+.1f} %"
    return reliability_diagram(bins, notes=notes)


def _robustness(results: Results) -> list[Curve]:
    curves = []
    for arm, runs in results.items():
        conditions = [row for row in runs[0]["conditions"] if row["family"] != "clean"]
        for family in dict.fromkeys(row["family"] for row in conditions):
            own = [i for i, row in enumerate(runs[0]["conditions"]) if row["family"] == family]
            first = [runs[0]["conditions"][i] for i in own]
            accuracy = torch.tensor(
                [[run["conditions"][i]["accuracy"] for i in own] for run in runs]
            )
            strengths = [row["strength"] for row in first]
            mean, std = 100 * accuracy.mean(0), 100 * accuracy.std(0, correction=len(runs) > 1)
            unit = first[0]["unit"]
            curves.append(Curve(arm, family, unit, strengths, mean.tolist(), std.tolist()))
    return curves


def _histories(results: Results) -> dict[str, dict[str, tuple[list[float], Tensor]]]:
    """The first few names that were logged in several epochs of every run."""
    runs = [run for each in results.values() for run in each]
    histories: list[dict[str, Any]] = [run["history"] for run in runs]
    names = [name for name in histories[0] if all(name in history for history in histories)]
    names.sort(key=lambda name: name.startswith("temperature/"))  # what the module logs first
    long = [n for n in names if all(len(history[n]["epoch"]) > 1 for history in histories)]
    return {
        name: {arm: _curve(each, name) for arm, each in results.items()}
        for name in long[:_MOST_CURVES]
    }


def _curve(runs: Sequence[Run], name: str) -> tuple[list[float], Tensor]:
    curves = [dict(zip(*run["history"][name].values(), strict=True)) for run in runs]
    epochs = [epoch for epoch in curves[0] if all(epoch in curve for curve in curves)]
    return epochs, torch.tensor([[curve[epoch] for epoch in epochs] for curve in curves])


def _shared(runs: Sequence[Run], name: str) -> list[str]:
    return [layer for layer in runs[0][name] if all(layer in run[name] for run in runs)]


def _mean(values: Sequence[Any]) -> Tensor:
    return torch.tensor(values).mean(0)

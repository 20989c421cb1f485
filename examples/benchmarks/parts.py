"""The parts of a step of Lightning on a network that does nothing, without and with mixing."""

from functools import partial
from pkgutil import resolve_name
from statistics import fmean
from time import perf_counter
from typing import Any

from typing_extensions import Self

from benchmarks import loops
from benchmarks.host import CASES, FIRST, TOGETHER, Net
from benchmarks.lanes import Effort, timed

Row = dict[str, Any]
WHOLE = "the whole step"
PARTS = {
    "find the target": "lightning_mmix.batches.memory:TargetMemory.find",
    "draw": "lightning_mmix.engine.ahead:StepsAhead.at",
    "arm": "lightning_mmix.pairing.gates:Gates.arm",
    "gate": "lightning_mmix.pairing.gates:Gate.__call__",
    "loss": "benchmarks.host:Net.loss",
    "what the Trainer does with it": (
        "lightning.pytorch.loops.optimization.automatic:ClosureResult.from_training_step_output"
    ),
    "backward": "lightning.pytorch.strategies:Strategy.backward",
    "close": "lightning_mmix.training.callback:ManifoldMixup.on_train_batch_end",
}


def parts(device: str, effort: Effort) -> list[Row]:
    """The parts of a step of Lightning, each as long as it takes where it runs, without and with.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        effort: How long that goes on.
    """
    with _Clock() as clock:
        lanes = {
            name: loops.lightning(CASES[0], device, callbacks, module=partial(Net, work=CASES[0]))
            for name, callbacks in (("without", []), ("with", loops.ours([FIRST])))
        }
        for lane in lanes.values():
            for _ in range(2 * TOGETHER):
                lane()
        found: dict[str, dict[str, list[float]]] = {name: {} for name in lanes}
        for _ in effort.rounds_in_time():
            for name, lane in lanes.items():
                clock.seconds = found[name]
                found[name].setdefault(WHOLE, []).append(timed(lane, TOGETHER))
    return [
        {"part": part, **{name: 1e6 * fmean(found[name].get(part, [0.0])) for name in lanes}}
        for part in [*PARTS, WHOLE]
    ]


class _Clock:
    """Times the calls of some functions, with all that they call."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._before: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> Self:
        for part, place in PARTS.items():
            owner, _, name = place.rpartition(".")
            holder = resolve_name(owner)
            self._before.append((holder, name, vars(holder)[name]))
            setattr(holder, name, self._timed(part, vars(holder)[name]))
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            setattr(*self._before.pop())

    def _timed(self, part: str, function: Any) -> Any:
        called = function.__func__ if isinstance(function, classmethod) else function

        def measured(*args: Any, **kwargs: Any) -> Any:
            start = perf_counter()
            try:
                return called(*args, **kwargs)
            finally:
                self.seconds.setdefault(part, []).append(perf_counter() - start)

        return classmethod(measured) if isinstance(function, classmethod) else measured

"""A task: what a run has to do, and where it leaves its result."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

TASK, RESULT, LOG, SHARE = "task.json", "result.json", "log.txt", "share.json"

Run = Mapping[str, Any]
Results = Mapping[str, Sequence[Run]]
Way = Literal["none", "input", "manifold", "config"]


@dataclass(frozen=True)
class Task:
    """What a run has to do.

    Attributes:
        arm: The name of the way to train.
        way: ``"none"``: no mixing. ``"input"``: plain mixup, α = 1. ``"manifold"``: the
            :class:`ManifoldMixup` of the config or of the module, or else one as it comes.
            ``"config"``: as the config says.
        seed: Of everything.
        args: For LightningCLI.
        measuring: The arguments of :class:`~.instructions.Instructions`.
    """

    arm: str
    way: Way
    seed: int
    args: list[str]
    measuring: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write it where the process that does it looks for it."""
        write_json(folder / TASK, asdict(self))


def folder_of(task: Task, folder: Path) -> Path:
    """Where a run leaves its log and its result."""
    return folder / "runs" / f"{quote(task.arm, safe='')}-{task.seed}"


def result_of(task: Task, folder: Path) -> dict[str, Any] | None:
    """The result of a run, None if it is not done."""
    return read_json(folder_of(task, folder) / RESULT)


def read_json(path: Path) -> dict[str, Any] | None:
    """What a file holds, None if it is not there."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found


def write_json(path: Path, values: Any) -> None:
    """Write a file as a whole or not at all, whoever else writes it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder) / "run.json", {"seed": 3})
        ...     read_json(Path(folder) / "run.json")
        {'seed': 3}
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_text(json.dumps(values, indent=1), encoding="utf-8")
    partial.replace(path)

"""Claims: which worker does a run, told in files, so that several can share a folder.

A claim is a file with a number, ``claim-1``, which its worker touches as long as it lives. Whoever
finds the last claim of a run untouched for long makes the next one; that one file can be made only
once, so that only one worker goes on. Files are all that workers share: they may run on machines
that know nothing of each other, and whose clocks differ.
"""

import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

BEAT = 10.0  # seconds after which a claim is touched again
DEAD = 180.0  # seconds untouched: more than a network file system may hold back

_NAME = "claim-"


class Claim:
    """A run that a worker has claimed.

    Args:
        path: The claim's file, which is made.

    Raises:
        FileExistsError: If another worker was faster.
    """

    def __init__(self, path: Path) -> None:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"place": _place(), "process": os.getpid(), "host": platform.node()}, file)
        self._path = path
        self._touched = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next beat."""
        return time.monotonic() - self._touched > BEAT

    def beat(self) -> bool:
        """Tell that the worker lives, and whether the run is still its own."""
        if _last(self._path.parent) != self._path:
            return False
        os.utime(self._path)
        self._touched = time.monotonic()
        return True

    def release(self) -> None:
        """Leave the run to others."""
        self._path.unlink(missing_ok=True)


def claim(folder: Path) -> Claim | None:
    """Claim a run.

    Args:
        folder: Of the run.

    Returns:
        The claim; None if another worker has one and lives.
    """
    last = _last(folder)
    if last is not None and not _is_dead(last):
        return None
    try:
        return Claim(folder / f"{_NAME}{_number(last) + 1}")
    except FileExistsError:
        return None


def is_abandoned(folder: Path) -> bool:
    """Whether the worker that claimed a run is dead."""
    last = _last(folder)
    return last is not None and _is_dead(last)


def clear(folder: Path) -> None:
    """Remove all claims of a run that is done."""
    for path in folder.glob(f"{_NAME}*"):
        path.unlink(missing_ok=True)


def holder(folder: Path) -> str:
    """The machine whose worker has claimed a run; empty without a claim."""
    last = _last(folder)
    return str(_read(last).get("host", "")) if last is not None else ""


def _last(folder: Path) -> Path | None:
    return max(folder.glob(f"{_NAME}*"), key=_number, default=None)


def _number(path: Path | None) -> int:
    return 0 if path is None else int(path.name.removeprefix(_NAME))


def _is_dead(path: Path) -> bool:
    told = _read(path)
    # where it can be seen at once; on Windows to ask would be to end it
    if told.get("place") == _place() and os.name != "nt":
        return not _is_running(int(told["process"]))
    try:
        return _now(path.parent) - path.stat().st_mtime > DEAD
    except FileNotFoundError:  # it was released just now
        return True


def _read(path: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # released, or not written yet
        return {}
    return told


def _is_running(process: int) -> bool:
    if process == os.getpid():
        return False  # of an earlier comparison in this process
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _now(folder: Path) -> float:
    """The time by the clock of the file system, on which claims are touched."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".now") as file:
        return Path(file.name).stat().st_mtime


def _place() -> str:
    """Where process numbers mean the same: a machine since its start, or a container."""
    parts = [platform.node()]
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if boot.exists():
        parts.append(boot.read_text(encoding="utf-8").strip())
    if space.is_symlink():
        parts.append(str(space.readlink()))
    return " ".join(parts)

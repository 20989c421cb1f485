"""The same step on one process and on two, which talk with each other.

    PYTHONPATH=examples torchrun --nproc-per-node 2 -m benchmarks.ranks FILE DEVICE ROUNDS NETWORK

writes what it measured of a network of the workloads into a file, as JSON.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks import loops
from benchmarks.counts import collectives
from benchmarks.lanes import Effort, race
from benchmarks.measures import NONE, OURS, row
from benchmarks.workloads import ON_CPU, ON_GPU, TINY


def main(file: str, device: str, rounds: int, network: str) -> None:
    """Measure, on each of the processes; the first one writes the file."""
    torch.set_num_threads(max(1, torch.get_num_threads() // int(os.environ["WORLD_SIZE"])))
    (work,) = (each for each in [*ON_CPU, *ON_GPU, *TINY] if each.name == network)
    ddp: dict[str, Any] = {"strategy": "ddp", "devices": int(os.environ["WORLD_SIZE"])}
    none = loops.lightning(work, device, [], **ddp)
    ours = loops.lightning(work, device, loops.ours(work.layer), **ddp)
    course = race(none, {OURS: ours}, Effort(rounds))[OURS]
    measured = {
        "processes": int(os.environ["WORLD_SIZE"]),
        **row(course, OURS, NONE, work),
        "collectives_without": collectives(none),
        "collectives_with": collectives(ours),
    }
    if int(os.environ["RANK"]) == 0:
        Path(file).write_text(json.dumps(measured))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
    os._exit(0)  # the fits, which have no end, hold the processes together

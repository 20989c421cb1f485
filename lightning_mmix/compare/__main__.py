"""``python -m lightning_mmix.compare``: the command, or, of a folder with a task, that one run."""

import sys
from pathlib import Path

from lightning_mmix.compare.command import compare
from lightning_mmix.compare.runs import TASK, main

if __name__ == "__main__":
    if len(sys.argv) == 2 and (Path(sys.argv[1]) / TASK).exists():
        main(Path(sys.argv[1]))
    else:
        compare(sys.argv[1:])

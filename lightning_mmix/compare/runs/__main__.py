"""``python -m lightning_mmix.compare.runs FOLDER``: do what lies there, a run or a rehearsal."""

import sys
from pathlib import Path

from lightning_mmix.compare.runs.processes import TASKS
from lightning_mmix.compare.runs.rehearsal import main as rehearse
from lightning_mmix.compare.runs.run import main as run

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (rehearse if (folder / TASKS).exists() else run)(folder)

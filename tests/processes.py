"""Scripts that start processes of their own."""

import os
import subprocess
import sys


def launch(*command):
    """Run Python with these arguments, a thread in each process, and hand on how it failed."""
    environment = {k: v for k, v in os.environ.items() if k != "PL_GLOBAL_SEED"}
    done = subprocess.run(
        [sys.executable, *map(str, command)], env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout

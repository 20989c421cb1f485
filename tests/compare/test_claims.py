"""Claims of runs, by which workers share a folder."""

import json
import os
import subprocess
import sys
import time

import pytest

from lightning_mmix.compare.runs.claims import DEAD, Claim, claim, clear, holder, is_abandoned


def of_another(folder, number=1, age=0.0, **told):
    """A claim that another worker made."""
    path = folder / f"claim-{number}"
    path.write_text(json.dumps({"place": "elsewhere", "process": 1, "host": "node7", **told}))
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_a_run_is_claimed_once(tmp_path):
    of_another(tmp_path)
    assert claim(tmp_path) is None
    assert not is_abandoned(tmp_path)
    assert holder(tmp_path) == "node7"


def test_a_claim_that_is_not_touched_for_long_is_taken_over(tmp_path):
    of_another(tmp_path, age=DEAD + 5)
    assert is_abandoned(tmp_path)
    assert claim(tmp_path).beat()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["claim-1", "claim-2"]


def test_a_worker_that_was_taken_for_dead_learns_of_it(tmp_path):
    own = claim(tmp_path)
    assert own.beat()
    of_another(tmp_path, 2)
    assert not own.beat()


def test_a_beat_tells_that_the_worker_lives(tmp_path):
    own = claim(tmp_path)
    path = tmp_path / "claim-1"
    os.utime(path, (0, 0))
    own.beat()
    assert time.time() - path.stat().st_mtime < 60


def test_a_dead_process_of_the_same_machine_is_known_at_once(tmp_path):
    code = (
        "import sys; from pathlib import Path;"
        "from lightning_mmix.compare.runs.claims import claim; claim(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert is_abandoned(tmp_path)


def test_a_living_process_of_the_same_machine_keeps_its_claim_however_old(tmp_path):
    own = claim(tmp_path)
    told = json.loads((tmp_path / "claim-1").read_text())
    of_another(tmp_path, age=10 * DEAD, place=told["place"], process=os.getppid())
    assert claim(tmp_path) is None
    own.release()


def test_of_two_that_take_over_one_succeeds(tmp_path):
    Claim(tmp_path / "claim-1")
    with pytest.raises(FileExistsError):
        Claim(tmp_path / "claim-1")


def test_a_claim_that_is_being_written_is_alive(tmp_path):
    (tmp_path / "claim-1").touch()
    assert claim(tmp_path) is None


def test_what_is_released_or_done_can_be_claimed_again(tmp_path):
    claim(tmp_path).release()
    assert not is_abandoned(tmp_path)
    of_another(tmp_path)
    clear(tmp_path)
    assert claim(tmp_path) is not None
    assert holder(tmp_path / "nowhere") == ""

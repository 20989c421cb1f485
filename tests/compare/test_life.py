"""What a comparison tells while it runs."""

import io

from rich.console import Console

from lightning_mmix.compare.runs.life import Signs, lasting
from lightning_mmix.compare.runs.task import RESULT, Task, folder_of, write_json

TASKS = [Task("none", "none", seed, []) for seed in range(4)]


def finish(task, folder, **found):
    own = folder_of(task, folder)
    own.mkdir(parents=True)
    write_json(own / RESULT, {"seconds": {"training": 50.0, "measuring": 12.0}, **found})


def signs(folder, file, *, is_terminal=False):
    console = Console(file=file, width=80, force_terminal=is_terminal)
    return Signs(console, TASKS, folder, [{}, {}])


def test_a_file_gets_a_line_as_each_run_ends(tmp_path):
    file = io.StringIO()
    with signs(tmp_path, file) as told:
        finish(TASKS[0], tmp_path, clean={"accuracy": 0.912})
        told.done(TASKS[0])
        finish(TASKS[3], tmp_path, own={"mse": 0.25})
        told.done(TASKS[3])
    assert file.getvalue() == (
        "1/4  seed 0  none             accuracy 91.20 %, in 1 min; about 0 s left\n"
        "2/4  seed 3  none             mse 0.25, in 1 min; about 0 s left\n"
    )


def test_the_first_seconds_of_training_tell_once_how_long_all_takes(tmp_path):
    file = io.StringIO()
    finish(TASKS[0], tmp_path, own={})
    with signs(tmp_path, file) as told:
        told.goes(0.01, 2.0)
        assert file.getvalue() == ""
        told.goes(0.05, 6.0)
        told.goes(0.05, 6.0)
    assert file.getvalue() == (
        "training: about 2 min a run, 4 min in all; measuring comes on top\n"
    )


def test_what_is_done_before_counts(tmp_path):
    for task in TASKS[:3]:
        finish(task, tmp_path, own={"mse": 0.5})
    file = io.StringIO()
    with signs(tmp_path, file) as told:
        finish(TASKS[3], tmp_path, own={"mse": 0.5})
        told.done(TASKS[3])
    assert file.getvalue() == "4/4  seed 3  none             mse 0.5, in 1 min\n"


def test_a_terminal_gets_a_bar_too(tmp_path):
    file = io.StringIO()
    with signs(tmp_path, file, is_terminal=True):
        pass
    assert "0/4" in file.getvalue()


def test_times_are_told_as_one_says_them():
    assert [lasting(each) for each in (0.4, 59, 61, 3500, 3700)] == [
        "0 s", "59 s", "1 min", "58 min", "1.0 h"
    ]  # fmt: skip

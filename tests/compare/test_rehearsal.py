"""The rehearsal: what it finds, and that it trains nothing."""

from pathlib import Path

import pytest
import torch
import yaml
from test_mistakes import ALL, COMPARE, MIXUP, Table, config

from lightning_mmix.compare.options import options_of
from lightning_mmix.compare.runs.processes import rehearsed
from lightning_mmix.compare.runs.rehearsal import ProblemError, rehearse
from lightning_mmix.compare.runs.task import Task

pytestmark = pytest.mark.filterwarnings("ignore:.*GPU available")
WAYS = {"no mixing": "none", "input mixup": "input", "manifold mixup": "manifold"}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Regression(Table):
    """A module whose predictions are no classifier's."""

    def training_step(self, batch, batch_idx):
        loss = (self(batch[0])[:, 0] - batch[1].float()).square().mean()
        self.log("loss", loss)
        return loss

    validation_step = test_step = training_step

    def forward(self, x):
        return super().forward(x)[:, :1].repeat(1, 7, 1)


class SetUp(Table):
    """A module that is made ready for its test by the fit before it."""

    def setup(self, stage):
        if stage == "fit":
            self.names = ["a", "b", "c"]

    def test_step(self, batch, batch_idx):
        self.log(self.names[0], 1.0)


class Alone(Table):
    """A module whose loss does without the target."""

    def training_step(self, batch, batch_idx):
        return self(batch[0]).square().mean()


def tasks(made, ways=WAYS, **measuring):
    Path("config.yaml").write_text(yaml.safe_dump(made))
    args = ["--config", "config.yaml"]
    return [Task(arm, way, 0, args, measuring) for arm, way in ways.items()]


def of(kind, **made):
    return {**config(**made), "model": {"class_path": f"test_rehearsal.{kind}"}}


def test_what_is_right_is_told_with_what_it_runs_on(tmp_path):
    Path("arm.yaml").write_text(
        yaml.safe_dump({"trainer": {"callbacks+": [{"class_path": MIXUP}]}})
    )
    all_of = tasks(config())
    overlay = Task("arm", "config", 0, [*all_of[0].args, "--config=arm.yaml"])
    facts = rehearse([*all_of, overlay])
    assert (facts["stage"], facts["unmeasured"]) == ("test", "")
    assert f"torch {torch.__version__}" in facts["machine"]["versions"]
    assert not Path("trained").exists()


def test_predictions_of_another_kind_are_told_before_hours_of_training():
    facts = rehearse(tasks(of("Regression")))
    assert facts["unmeasured"].startswith("the forward pass of Regression makes no predictions")
    with pytest.raises(ProblemError, match="the forward pass of Regression makes no predictions"):
        rehearse(tasks(of("Regression"), ignore_index=-1))


def test_the_training_step_is_tried_as_it_is_mixed():
    rehearse(tasks(of("Alone"), {"no mixing": "none"}))
    with pytest.raises(ProblemError, match=r"^input mixup: .*but the loss"):
        rehearse(tasks(of("Alone")))


class Lost(Table):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * float("nan")

    validation_step = test_step = Table.training_step


class Named(Table):
    """A module whose batches have two entries that could be the target."""

    def training_step(self, batch, batch_idx):
        return super().training_step((batch["a"], batch["lab"]), batch_idx)

    validation_step = test_step = training_step

    def forward(self, a):
        return super().forward(a["a"] if isinstance(a, dict) else a)

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return {"a": batch[0], "lab": batch[1], "id": batch[1]}


def with_data(kind="Table", **data):
    return {
        **config(),
        "model": {"class_path": f"test_rehearsal.{kind}"},
        "data": {"class_path": "test_mistakes.Data", "init_args": data},
    }


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (with_data(size=1), "expected training batches of two or more samples, but the first"),
        (with_data(empty=True), "expected data to test on, but their loader is empty"),
        (with_data("Lost"), "the training loss of the first batch is NaN"),
    ],
)
def test_what_would_compare_nothing_is_refused(made, said):
    with pytest.raises(ProblemError, match=said):
        rehearse(tasks(made))


def test_an_input_that_is_not_there_is_refused():
    for ways in (WAYS, {"no mixing": "none"}):  # also where nothing is mixed
        with pytest.raises(ProblemError, match="there is no input=3 in the batch"):
            rehearse(tasks(config(), ways, input=3))


def test_a_target_that_is_named_to_one_is_told_the_other():
    with pytest.raises(ProblemError, match="no recognisable target"):
        rehearse(tasks(with_data("Named")))
    assert not rehearse(tasks(with_data("Named"), target="lab", input="a"))["unmeasured"]
    named = with_data("Named")
    mixup = {"class_path": MIXUP, "init_args": {"target": "lab", "input": "a"}}
    named["trainer"] = {**named["trainer"], "callbacks": [mixup]}
    assert not rehearse(tasks(named))["unmeasured"]


def test_data_loaders_may_have_workers():
    assert rehearsed(tasks(with_data(workers=1)))["stage"] == "test"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected keys such as model: and trainer: in arm.yaml, but got nothing"),
        ("- a\n- b", "expected keys such as model: and trainer: in arm.yaml, but got a list"),
        ("trainer:\n\tmax_epochs: 1", r"arm.yaml, line 2 is no YAML: found character '\t'"),
    ],
)
def test_a_file_that_is_no_config_is_told_by_its_name(text, said):
    Path("arm.yaml").write_text(text)
    (task,) = tasks(config(), {"arm": "config"})
    with pytest.raises(ProblemError) as problem:
        rehearse([Task("arm", "config", 0, [*task.args, "--config=arm.yaml"])])
    assert str(problem.value).startswith(f"arm: {said}")


def test_a_module_that_expects_a_fit_before_its_test_is_right():
    assert rehearse(tasks(of("SetUp")))["stage"] == "test"


def test_a_config_of_several_devices_is_tried_on_one():
    several = {"devices": 2, "strategy": {"class_path": "DDPStrategy"}}
    made = config()
    assert rehearse(tasks({**made, "trainer": {**made["trainer"], **several}}))["stage"] == "test"


def test_a_step_is_tried_once_all_other_arms_are_right():
    good, bad = tasks(of("Alone"), {"manifold mixup": "manifold"}), {"alpha": -1}
    overlay = {"callbacks+": [{"class_path": MIXUP, "init_args": bad}]}
    Path("bad.yaml").write_text(yaml.safe_dump({"trainer": overlay}))
    arm = Task("bad", "config", 0, [*good[0].args, "--config=bad.yaml"])
    with pytest.raises(ProblemError, match=r"^bad: expected a finite alpha"):
        rehearse([*good, arm])
    with pytest.raises(ProblemError, match="but the loss"):
        rehearse(good)


@pytest.mark.parametrize("what", {**ALL, **COMPARE})
def test_mistakes_are_told_before_anything_is_trained(what):
    made, args, said = {**ALL, **COMPARE}[what]
    Path("config.yaml").write_text(yaml.safe_dump(made))
    overlay = {"callbacks+": [{"class_path": MIXUP, "init_args": {"alpha": -1}}]}
    Path("arm.yaml").write_text(yaml.safe_dump({"trainer": overlay}))
    with pytest.raises(ProblemError) as problem:
        rehearse(options_of(["--config", "config.yaml", *args]).rehearsal)
    assert str(problem.value).startswith(said)
    assert not Path("trained").exists()


def test_the_process_of_a_rehearsal_leaves_nothing(tmp_path):
    facts = rehearsed(tasks({**config(), "trainer": {**config()["trainer"], "logger": True}}))
    assert facts["stage"] == "test"
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml"}

"""An interrupted run and its resumed rest are one run, bit for bit."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from inspect import signature
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from fitting import Net, loader, trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DistributedSampler

from lightning_mmix import ManifoldMixup
from lightning_mmix.core.plan import Recipe, draw

# what resumes writes elsewhere
pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")

NAMED = ["input", "net.0"]
SEED, SIZE, SAMPLES = 3, 3, 24
X = torch.randn(SAMPLES, 4, generator=torch.Generator().manual_seed(7))
Y = torch.arange(SAMPLES) % 5


class Anew:
    """Batches in an order that the epoch decides, from the first one whenever it is asked."""

    def __init__(self, trained):
        self.sampler = DistributedSampler(X, trained.world_size, trained.global_rank)
        self.next = 0

    def __len__(self):
        return len(self.sampler) // SIZE

    def __iter__(self):
        self.next, rows = self.first(), list(self.sampler)
        while self.next < len(self):
            chosen = rows[SIZE * self.next :][:SIZE]
            self.next += 1
            yield X[chosen], Y[chosen]

    def first(self):
        return 0


class GoesOn(Anew):
    """Goes on behind the batch that was the last one when its state was taken."""

    def first(self):
        return self.next % len(self)

    def state_dict(self):
        return {"next": self.next}

    def load_state_dict(self, state):
        self.next = state["next"]


class Resumable(Net):
    def __init__(self, lr=0.1, batches=GoesOn):
        torch.manual_seed(1)
        super().__init__()
        self.save_hyperparameters("lr")
        self.batches = batches

    def train_dataloader(self):
        return self.batches(self.trainer)

    def val_dataloader(self):
        return loader([(X, Y), (X[:5], Y[:5])])

    def validation_step(self, batch, batch_idx):
        self.log("val", self.criterion(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), self.hparams.lr)
        # it changes the momentum, too
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.hparams.lr, total_steps=99)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Notes(L.Callback):
    """Writes down all plans; ends its process without a goodbye in a step that is told."""

    def __init__(self, kill):
        self.kill, self.plans, self.batches = kill, [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.now = [trainer.current_epoch, batch_idx]
        self.batches.append(batch[1].tolist())
        for mixup in (c for c in trainer.callbacks if isinstance(c, ManifoldMixup)):
            self.plans.append((*self.now, *(plain(mixup.plan) or [None])))

    def on_before_backward(self, *_):
        if self.now == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)


def plain(plan):
    return plan and (
        plan.layer,
        [x.hex() for x in plan.lam.view(-1).tolist()],
        plan.partner.tolist(),
    )


def train(folder, name, *callbacks, resume=None, kill=None, every=None, module=None, **kwargs):
    """Fit, with checkpoints in folder/name; what came out is returned and written next to it."""
    checkpoints = ModelCheckpoint(
        Path(folder, name), "{step}", save_last=True, save_top_k=-1, every_n_train_steps=every
    )
    module, notes = module or Resumable(), Notes(kill)
    limits = {"max_epochs": 2, "limit_val_batches": 0, "enable_checkpointing": True}
    how = {key: kwargs.pop(key) for key in ("weights_only",) if key in kwargs}
    trained = trainer(*callbacks, notes, checkpoints, **{**limits, **kwargs})
    trained.fit(module, ckpt_path=resume and Path(folder, resume), **how)
    found = {"weights": module.state_dict(), "plans": notes.plans, "batches": notes.batches}
    torch.save(found, Path(folder, f"{name}-{trained.global_rank}.pt"))
    return found


def mixup(layers="auto", seed=SEED):
    return ManifoldMixup(layers=layers, seed=seed, stop=1.0)


def assert_one_run(whole, rest):
    """The rest of a run is the end of the whole one."""
    start = len(whole["plans"]) - len(rest["plans"])
    assert start > 0
    assert rest["plans"] == whole["plans"][start:]
    assert len({layer for _, _, layer, *_ in whole["plans"]}) > 1
    torch.testing.assert_close(rest["weights"], whole["weights"], atol=0, rtol=0)


def assert_drawn(found, names, num_batches, **kwargs):
    """The plans are those of the second epoch, a pure function of seed, batch and rank."""
    recipe = Recipe(1.0, dict.fromkeys(names, 1.0))
    assert found["plans"] == [
        (1, i, *plain(draw(recipe, SIZE, **{"seed": SEED, "epoch": 1, "batch_idx": i, **kwargs})))
        for i in range(num_batches)
    ]


@pytest.mark.parametrize("layers", ["auto", NAMED], ids=str)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"every": 3},
        {"every": 8},
        {"every": 2, "accumulate_grad_batches": 3},
        {"every": 5, "limit_val_batches": 2, "val_check_interval": 4},
        {"limit_val_batches": 2},
        {"limit_val_batches": 2, "check_val_every_n_epoch": 2},
        {"every": 3, "max_epochs": -1, "max_steps": 15},
    ],
    ids=str,
)
def test_every_checkpoint_of_a_run_leads_to_its_end(tmp_path, settings, layers):
    whole = train(tmp_path, "whole", mixup(layers), **settings)
    for path in sorted(tmp_path.glob("whole/step=*.ckpt")):
        rest = train(tmp_path, path.stem, mixup(layers), resume=path, **settings)
        assert_one_run(whole, rest)


SCHEDULES = {
    "now and then": {"prob": 0.5},
    "other strengths": {"alpha": {0: 1.0, 1: 0.3}, "prob": {0: 1.0, 1: 0.5}},
    "until": {"stop": 0.7},
    "settled": {"settle": 0.8},
    "settled by a logged gap": {"settle": 0.8, "gap": "gap"},
    "own labels": {"labels": "own"},
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_goes_on_where_it_was(tmp_path, name):
    class Validated(Resumable):
        def validation_step(self, batch, batch_idx):
            self.log("gap", float(self(batch[0]).sum().sin()), batch_size=1)

    def scheduled():
        return ManifoldMixup(**{"layers": NAMED, "seed": SEED, "stop": 1.0, **SCHEDULES[name]})

    often = {"every": 3, "limit_val_batches": 2, "val_check_interval": 2}
    whole = train(tmp_path, "whole", scheduled(), module=Validated(), **often)
    assert ("own" in name) == all(len(plan) > 3 for plan in whole["plans"])
    for path in sorted(tmp_path.glob("whole/step=*.ckpt")):
        rest = train(tmp_path, path.stem, scheduled(), module=Validated(), resume=path, **often)
        assert_one_run(whole, rest)


def test_without_a_stateful_loader_the_plans_go_on_and_the_data_start_anew(tmp_path):
    whole = train(tmp_path, "whole", mixup(), module=Resumable(batches=Anew), every=3)
    module, path = Resumable(batches=Anew), "whole/step=3.ckpt"
    with pytest.warns(UserWarning, match="your dataloader is not resumable"):
        rest = train(tmp_path, "rest", mixup(), module=module, resume=path, every=3)
    assert rest["plans"] == whole["plans"][3:]
    assert rest["batches"][:5] == whole["batches"][:5]
    assert rest["batches"][5:] == whole["batches"][8:]


@pytest.mark.skipif(
    "weights_only" not in signature(L.Trainer.fit).parameters, reason="Lightning 2.6 is asked so"
)
@pytest.mark.parametrize("weights_only", [True, False])
def test_hyperparameters_and_plans_survive_weights_only(tmp_path, weights_only):
    whole = train(tmp_path, "whole", mixup(), module=Resumable(lr=0.05))
    path = tmp_path / "whole/step=8.ckpt"
    module = Resumable.load_from_checkpoint(path, weights_only=weights_only)
    assert module.hparams.lr == 0.05
    rest = train(tmp_path, "rest", mixup(), module=module, resume=path, weights_only=weights_only)
    assert_one_run(whole, rest)


def test_the_seed_of_the_checkpoint_wins_until_the_next_fit(tmp_path):
    whole = train(tmp_path, "whole", mixup(NAMED))
    callback = mixup(NAMED, seed=9)
    assert_one_run(whole, train(tmp_path, "rest", callback, resume="whole/step=8.ckpt"))
    fresh, other = train(tmp_path, "fresh", callback), mixup(NAMED, seed=9)
    assert fresh["plans"] == train(tmp_path, "other", other)["plans"]


def test_a_callback_that_joins_a_resumed_run_draws_with_its_own_seed(tmp_path):
    train(tmp_path, "half", max_epochs=1)
    rest = train(tmp_path, "rest", mixup(NAMED, seed=9), resume="half/last.ckpt")
    assert_drawn(rest, NAMED, 8, seed=9)


def test_a_run_goes_on_plainly_without_the_callback(tmp_path):
    train(tmp_path, "half", mixup(), max_epochs=1)
    with pytest.warns(UserWarning, match="callbacks used to create the checkpoint"):
        rest = train(tmp_path, "rest", resume="half/last.ckpt")
    bare = torch.load(tmp_path / "half/last.ckpt", weights_only=True)
    assert bare["callbacks"].pop("ManifoldMixup")
    torch.save(bare, tmp_path / "bare.ckpt")
    plainly = train(tmp_path, "plainly", resume="bare.ckpt")
    torch.testing.assert_close(rest["weights"], plainly["weights"], atol=0, rtol=0)


def test_a_run_that_failed_goes_on_with_the_same_callback(tmp_path):
    class Fails(L.Callback):
        def on_before_backward(self, trainer, pl_module, loss):
            if trainer.global_step == 11:
                raise RuntimeError("stop")

    whole, callback = train(tmp_path, "whole", mixup()), mixup()
    with pytest.raises(RuntimeError, match="stop"):
        train(tmp_path, "failed", callback, Fails(), every=1)
    rest = train(tmp_path, "rest", callback, resume="failed/last.ckpt", every=1)
    assert_one_run(whole, rest)


SCRIPT = """
import json
import sys

sys.path[:0] = {tests}
import test_resume

if __name__ == "__main__":
    for job in json.loads(sys.argv[1]):
        test_resume.train({folder!r}, job.pop("name"), test_resume.mixup(job.pop("layers")), **job)
"""


def launched(folder, jobs, ranks):
    """Processes that do one job after the other, all of them together."""
    script = folder / "jobs.py"
    tests = [str(path) for path in Path(__file__).parents[:2]]
    script.write_text(SCRIPT.format(tests=tests, folder=str(folder)))
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(found.getsockname()[1])}
    several = {"devices": 2, "strategy": "ddp"} if ranks == 2 else {}
    command = [sys.executable, str(script), json.dumps([{**job, **several} for job in jobs])]
    places = [{**address, "LOCAL_RANK": str(rank)} for rank in range(ranks)] if several else [{}]
    return [
        subprocess.Popen(command, env={**os.environ, **place}, stderr=subprocess.PIPE, text=True)
        for place in places
    ]


def wait(processes, code):
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == code, errors[-3000:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Whole runs, and rests of them in new processes, of one rank and of two."""
    folders = {ranks: tmp_path_factory.mktemp(f"ranks{ranks}") for ranks in (1, 2)}
    first = [
        {"name": "auto", "layers": "auto", "every": 1},
        {"name": "named", "layers": NAMED},
        {"name": "half-auto", "layers": "auto", "max_epochs": 1},
        {"name": "half-named", "layers": NAMED, "max_epochs": 1},
        {"name": "killed", "layers": "auto", "every": 1, "kill": [1, 2]},
    ]
    again = [
        {"name": "rest-auto", "layers": "auto", "resume": "half-auto/last.ckpt"},
        {"name": "rest-named", "layers": NAMED, "resume": "half-named/last.ckpt"},
        {"name": "rest-killed", "layers": "auto", "resume": "killed/last.ckpt"},
        {"name": "rest-middle", "layers": "auto", "resume": "auto/step=3.ckpt"},
    ]
    both = [launched(folder, first, ranks) for ranks, folder in folders.items()]
    wait(itertools.chain(*both), -signal.SIGKILL)
    other = {ranks: str(folders[3 - ranks] / "half-auto/last.ckpt") for ranks in folders}
    both = [
        launched(
            folder, [*again, {"name": "other", "layers": "auto", "resume": other[ranks]}], ranks
        )
        for ranks, folder in folders.items()
    ]
    wait(itertools.chain(*both), 0)
    return {
        (ranks, path.stem): torch.load(path)
        for ranks, folder in folders.items()
        for path in folder.glob("*.pt")
    }


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(
    ("whole", "rest"),
    [("auto", "auto"), ("named", "named"), ("auto", "killed"), ("auto", "middle")],
)
def test_a_new_process_takes_a_run_to_the_same_end(runs, whole, rest, ranks):
    for rank in range(ranks):
        assert_one_run(runs[ranks, f"{whole}-{rank}"], runs[ranks, f"rest-{rest}-{rank}"])


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_with_another_number_of_ranks_the_plans_are_those_of_epoch_batch_and_rank(runs, ranks):
    for rank in range(ranks):
        found = runs[ranks, f"other-{rank}"]
        assert_drawn(found, ["input", "net.1"], 8 // ranks, rank=rank)


@pytest.mark.slow
def test_ranks_share_layers_and_weights_and_nothing_else(runs):
    first, second = runs[2, "auto-0"], runs[2, "auto-1"]
    torch.testing.assert_close(first["weights"], second["weights"], atol=0, rtol=0)
    assert [p[:3] for p in first["plans"]] == [p[:3] for p in second["plans"]]
    assert all(a[3] != b[3] for a, b in zip(first["plans"], second["plans"], strict=True))

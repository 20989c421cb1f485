import os

import pytest
import torch


def pytest_configure(config):
    if hasattr(config, "workerinput"):  # of several, of which each has a core
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items):
    """Begin with the files that take long, so that no worker ends with them."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give a worker whole files, whose tests share fixtures and compiled code."""
    from xdist.scheduler import LoadFileScheduling  # noqa: PLC0415 - plain pytest does without

    if config.option.dist != "load":  # it was asked for another way
        return None
    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


@pytest.fixture(autouse=True)
def _seeded(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)  # an earlier test's seed_everything
    torch.manual_seed(0)


@pytest.fixture
def step():
    """A step of three samples whose layer has run."""
    # here, so that the tests of imports run also if one of ours goes wrong
    from lightning_mmix.core.plan import MixPlan  # noqa: PLC0415
    from lightning_mmix.pairing.step import Step  # noqa: PLC0415

    step = Step(MixPlan("0", torch.tensor(0.75), torch.tensor([2, 0, 1])))
    step.fired = True
    yield step
    step.close()


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)

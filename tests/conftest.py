import pytest
import torch

from lightning_mmix.core.plan import MixPlan
from lightning_mmix.pairing.step import Step


@pytest.fixture(autouse=True)
def _seeded(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)  # an earlier test's seed_everything
    torch.manual_seed(0)


@pytest.fixture
def step():
    """A step of three samples whose layer has run."""
    step = Step(MixPlan("0", torch.tensor(0.75), torch.tensor([2, 0, 1])))
    step.fired = True
    yield step
    step.close()


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)

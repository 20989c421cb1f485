"""The way of a batch through the packages is the one that examples/guides/inside.md tells."""

import re
import sys
from pathlib import Path

import lightning.pytorch as L
import pytest
from fitting import Net, batches, fit
from test_floors import PACKAGE, ROOT, imports, name_of

from lightning_mmix import ManifoldMixup

BEGINS = {  # a moment, with the first call of this function after the moment before
    "the batch comes": ("training/callback.py", "on_train_batch_start"),
    "the batch is lent": ("pairing/gates.py", "arm"),
    "the layer runs": ("pairing/gates.py", "__call__"),
    "the loss is taken": ("pairing/tensor.py", "__torch_function__"),
    "the gradient is taken": ("training/callback.py", "on_before_backward"),
    "the batch ends": ("training/callback.py", "on_train_batch_end"),
}


def told():
    """The modules of each moment, as the page lists them."""
    page = (ROOT / "examples" / "guides" / "inside.md").read_text()
    part = page.split("## The way of a batch")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (the .*?) \| (.*) \|$", part, re.MULTILINE)
    return {moment: re.findall(r"`(\w+/\w+\.py)`", way) for moment, way in rows}


def ours(frame):
    path = Path(frame.f_code.co_filename)
    return str(path.relative_to(PACKAGE)) if PACKAGE in path.parents else None


class Trail(L.Callback):
    """Notes all calls of ours in the third batch, as (caller, called, name of the function).

    The first two are watched, and it has another size: what is remembered of them does not serve.
    """

    def __init__(self):
        self.calls = []

    def note(self, frame, event, _arg):
        called = ours(frame)
        if event == "call" and called is not None:
            self.calls.append((ours(frame.f_back), called, frame.f_code.co_name))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 2:
            sys.setprofile(self.note)

    def on_train_epoch_end(self, *_):
        sys.setprofile(None)


@pytest.fixture(scope="module")
def calls():
    trail = Trail()
    try:
        data = [*batches(2), *batches(size=5)]
        fit(Net(), trail, ManifoldMixup(layers=["net.1"], stop=0.9), data=data)
    finally:
        sys.setprofile(None)
    return trail.calls


def walked(calls):
    """The modules that each moment goes through."""
    found, ahead = {}, list(BEGINS)
    for _, called, name in calls:
        if ahead and (called, name) == BEGINS[ahead[0]]:
            found[ahead.pop(0)] = set()
        found[list(found)[-1]].add(called)
    return found


def test_every_moment_goes_by_way_of_the_modules_that_the_page_names(calls):
    found, page = walked(calls), told()
    assert list(found) == list(page) == list(BEGINS)
    for moment, modules in page.items():
        assert set(modules) <= found[moment], moment


def test_the_page_leaves_no_module_out(calls):
    named = {module for modules in told().values() for module in modules}
    assert set().union(*walked(calls).values()) - named == {"core/trees.py"}


def below():
    """Module → all that it imports, directly or by way of others."""
    paths = {name_of(path): path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    direct = {
        name: {imported for imported, _ in imports(path) if imported in paths}
        for name, path in paths.items()
    }

    def reached(name):
        return direct[name].union(*(reached(each) for each in direct[name]))

    return {file(name): {file(each) for each in reached(name)} for name in paths}


def file(name):
    return "/".join(name.split(".")[1:]) + ".py"


def test_the_way_reads_downwards(calls):
    under = below()
    for modules in told().values():
        for place, module in enumerate(modules):
            assert not any(module in under[later] for later in modules[place + 1 :]), module


def test_nobody_calls_back_up(calls):
    under, handed_down = below(), {"<lambda>", "<genexpr>"}
    for caller, called, name in calls:
        if caller not in (None, called) and name not in handed_down:
            assert called in under[caller], f"{caller} calls {name} of {called}"

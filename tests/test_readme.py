"""The README: short, its blocks run, and its figures are those of the pages that measure them."""

import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_it_is_short():
    assert len(README.splitlines()) <= 180


@pytest.mark.filterwarnings("ignore:.*GPU available")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_its_python_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "readme"}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["check"](names["Net"](), names["data"]).is_exact
    assert names["mixer"].layers_ == ["input", "body.1"]
    assert names["model"].head.weight.grad is not None


def test_its_yaml_is_that_of_the_example():
    (overlay,) = blocks("yaml")
    assert yaml.safe_load(overlay) == yaml.safe_load(
        (ROOT / "examples" / "manifold_mixup.yaml").read_text()
    )


def test_its_single_run_runs(monkeypatch):
    command = re.search(r"`python (examples/digits\.py fit [^`]*)`", README).group(1)
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [*command.split(), "--trainer.fast_dev_run=1"])
    digits = pytest.importorskip("digits")
    digits.main()


def test_its_figures_are_those_of_the_panel():
    page = (ROOT / "examples" / "panel" / "README.md").read_text()
    means = page[page.index("Means over seeds and these data sets.") :]
    plain = re.sub(r"\s+", " ", README)
    said = re.search(r"mean accuracy in %.*?to \*\*\d\.\d\*\*\. It depends", plain).group()
    before, after = re.findall(r"from ([\d.]+)", said), re.findall(r"to \*\*([\d.]+)", said)
    for name, figures in (("no mixing", before), ("recommended", after)):
        row = re.search(rf"^\| {name} \|(.*)\|$", means, re.MULTILINE).group(1).split("|")
        accuracy, nll, _, ece = (cell.strip() for cell in row[:4])
        assert figures == [accuracy, nll, ece]
    counted = re.search(r"^\| recommended \|.*?\| (\d) / \d / (\d), p (\.\d+)", page, re.MULTILINE)
    assert counted.groups() == ("7", "3", ".048")
    assert "better on seven of them and clearly worse on three" in plain

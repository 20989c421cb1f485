import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("ignore:.*GPU available")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_its_python_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "readme"}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["mixup"].plan is not None
    assert names["model"][0].weight.grad is not None


def test_its_yaml_is_that_of_the_example():
    (overlay,) = blocks("yaml")
    assert yaml.safe_load(overlay) == yaml.safe_load(
        (ROOT / "examples" / "manifold_mixup.yaml").read_text()
    )


def test_its_single_run_runs(tmp_path, monkeypatch):
    (command,) = [block for block in blocks("sh") if block.startswith("python")]
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [*command.split()[1:], "--trainer.fast_dev_run=1"])
    digits = pytest.importorskip("digits")
    digits.main()

import ast
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
    assert names["mixup"].layers_
    assert names["model"][0].weight.grad is not None


def test_its_yaml_is_that_of_the_example():
    (overlay,) = blocks("yaml")
    assert yaml.safe_load(overlay) == yaml.safe_load(
        (ROOT / "examples" / "manifold_mixup.yaml").read_text()
    )


def test_its_single_run_runs(tmp_path, monkeypatch):
    (command,) = [b for b in blocks("sh") if b.startswith("python examples/digits.py fit")]
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [*command.split()[1:], "--trainer.fast_dev_run=1"])
    digits = pytest.importorskip("digits")
    digits.main()


def words_of(path):
    """All strings of a module, one after the other."""
    tree = ast.parse(path.read_text())
    parts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    return " ".join(part for part in parts if isinstance(part, str))


def test_the_tests_that_it_names_exist():
    named = set(re.findall(r"`(test_\w+\.py)`", README))
    assert len(named) > 12
    assert named <= {path.name for path in Path(__file__).parent.rglob("test_*.py")}


def test_the_refusals_that_it_quotes_are_made():
    table = README[README.index("| refused |") :].split("\n\n")[0].splitlines()[2:]
    said = " ".join(map(words_of, (ROOT / "lightning_mmix").rglob("*.py")))
    said = re.sub(r"\s+", " ", said)
    quoted = [row.split(" | ")[1].strip("`") for row in table]
    assert len(quoted) > 8
    for sentence in quoted:
        assert all(part in said for part in sentence.split("; ")), sentence

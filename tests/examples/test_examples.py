"""Scripts: what the cut test says of well-known networks, and loops of several kinds."""

import re
import sys
from pathlib import Path

import processes
import pytest
import torch
import torchvision

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
cuts = pytest.importorskip("cuts")

from lightning_mmix.cuts.probe import Probe  # noqa: E402 - after the path
from lightning_mmix.cuts.verification import chosen_automatically  # noqa: E402 - after the path

RESNETS = [
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
]


@pytest.mark.parametrize("name", [*RESNETS, "PreActResNet18", "WRN-28-10"])
def test_auto_takes_what_the_paper_takes_on_every_resnet(name):
    make = getattr(torchvision.models, name) if name in RESNETS else cuts.NETWORKS[name].make
    probe = Probe(make().requires_grad_(False), torch.randn(2, 3, 64, 64), size=2)
    assert chosen_automatically(probe) == ["input", "layer1", "layer2"]


QUICK = ["PreActResNet18", "MLP", "LSTM classifier", "U-Net"]
COMPARED = {name: cuts.NETWORKS[name] for name in QUICK}
COMPARED["BERT of two layers"] = cuts.Network(lambda: cuts._bert(2), size=0)


@pytest.mark.parametrize("name", COMPARED)
def test_graph_and_values_agree_on_every_module(name):
    agreements, float64 = cuts._comparison(COMPARED[name], [torch.float64])
    same, count = agreements.split(" of ")
    assert same == count
    worst_cut, best_other = map(float, float64.split(", "))
    assert worst_cut < 1e-10
    assert best_other > 0.3


def test_the_script_prints_its_tables(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cuts.py", "MLP", "LSTM"])
    cuts.main()
    printed = capsys.readouterr().out
    assert "| MLP             | input, 2" in printed
    assert "| LSTM classifier | 3 of 3         | 0e+00, 1" in printed


@pytest.mark.parametrize("name", [*QUICK, "Hugging Face BERT", "torchvision resnet18"])
def test_the_documented_choice_is_that_of_today(name):
    document = (Path(cuts.__file__).with_suffix(".md")).read_text()
    names, depths, count, _ = cuts._choice(cuts.NETWORKS[name])
    row = next(line for line in document.splitlines() if line.startswith(f"| {name} "))
    assert [cell.strip() for cell in row.split("|")[2:5]] == [names, depths, count]


def test_a_plain_loop_tells_its_accuracy(monkeypatch, capsys):
    loop = pytest.importorskip("loop")
    monkeypatch.setattr(sys, "argv", ["loop.py", "--epochs=2"])
    loop.main()
    assert re.fullmatch(r"epoch 1: test accuracy 0\.\d{4}\n", capsys.readouterr().out)


def test_a_loop_of_fabric_goes_on_with_another_number_of_processes(tmp_path):
    script, out = Path(cuts.__file__).with_name("fabric.py"), tmp_path / "digits.ckpt"
    for devices, epochs in ((2, 2), (1, 3)):
        options = ["--accelerator=cpu", f"--devices={devices}", f"--epochs={epochs}"]
        said = processes.launch(script, *options, f"--out={out}")
        assert re.fullmatch(r"test accuracy 0\.\d{4}\n", said)
        state = torch.load(out, weights_only=True)
        assert state["epoch"] == epochs
        assert state["mixer"]["epoch"] == epochs - 1


@pytest.mark.slow
def test_two_processes_share_a_sharded_model():
    script = Path(cuts.__file__).with_name("sharded.py")
    options = ["--accelerator=cpu", "--strategy=fsdp2", "--epochs=8"]
    said = processes.launch(script, *options)
    assert float(re.search(r"test/accuracy\s*│\s*(0\.\d+)", said)[1]) > 0.9

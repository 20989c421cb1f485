"""The scripts that repeat the paper's experiments with hidden states, cut short."""

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy.stats import ttest_rel
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
spirals = pytest.importorskip("spirals")
flattening = pytest.importorskip("flattening")


@pytest.fixture
def threads():
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


def untrained_spirals():
    return spirals.Net(1).eval()


def untrained_flattening():
    return flattening.Net(12, 16, 1).eval()


def points(seed=0):
    return spirals.spirals(spirals.POINTS, np.random.default_rng(seed))


def spectra(states, labels, *, centred=True):
    classes = [states[labels == label].double() for label in labels.unique()]
    return torch.stack([torch.linalg.svdvals(c - c.mean(0) * centred) for c in classes])


def printed(table):
    console = Console(width=80)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_without_noise_the_spirals_lie_half_a_turn_apart(monkeypatch):
    monkeypatch.setattr(spirals, "NOISE", 0.0)
    monkeypatch.setattr(spirals, "TURNS", 1.25)
    (x, y), labels = points().tensors[0].double().T, points().tensors[1]
    unwound = torch.atan2(y, x) - 2 * math.pi * 1.25 * torch.hypot(x, y)
    assert torch.allclose(unwound.cos(), 1 - 2 * labels.double(), atol=1e-5)
    assert labels.bincount().tolist() == [spirals.POINTS, spirals.POINTS]


def test_a_seed_makes_the_same_points_again():
    first, again, other = (points(seed).tensors[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("make", "before", "units", "after"),
    [(untrained_spirals, 4, 2, 4), (untrained_flattening, 3, 12, 5)],
)
def test_the_bottleneck_lies_where_the_paper_has_it(make, before, units, after):
    net = make()
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)]
    assert linear.index(net.bottleneck) == before
    assert len(linear) == before + 1 + after
    assert net.bottleneck.out_features == units


@pytest.mark.parametrize("layers", [["input"], ["bottleneck"]])
def test_the_arms_of_a_seed_share_first_weights_and_batches(layers, monkeypatch):
    monkeypatch.setattr(spirals, "ALPHA", 1e-3)  # λ is 1, or so near that float32 can't tell
    plain, mixed = (spirals.trained(points(), each, 2, seed=5) for each in ([], layers))
    for own, other in zip(plain.parameters(), mixed.parameters(), strict=True):
        assert torch.allclose(own, other, atol=1e-6)


@pytest.mark.parametrize("layers", [["input"], ["bottleneck"]])
def test_the_arms_of_a_seed_differ_by_mixing(layers):
    plain, mixed = (spirals.trained(points(), each, 2, seed=5) for each in ([], layers))
    assert not torch.allclose(plain.bottleneck.weight, mixed.bottleneck.weight, atol=1e-6)


def test_the_spread_is_a_standard_deviation_in_each_direction():
    train, net = points(), untrained_spirals()
    found, panel = spirals.seen(net, train, points(1))
    states = net.bottleneck(net.encoder(train.tensors[0])).detach()
    deviations = spectra(states, train.tensors[1]) / spirals.POINTS**0.5
    assert torch.equal(panel.hidden, states)
    assert [found.largest, found.rest] == pytest.approx(deviations.mean(0).tolist())


def test_accuracy_and_nll_are_those_of_train_and_test():
    train, test, net = points(), points(1), untrained_spirals()
    found, _ = spirals.seen(net, train, test)
    for data, accuracy in ((train, found.train_accuracy), (test, found.test_accuracy)):
        probs = net(data.tensors[0]).detach().softmax(1)
        own = probs[torch.arange(len(probs)), data.tensors[1]]
        assert accuracy == pytest.approx(100 * (own > 0.5).float().mean().item())
    assert found.test_nll == pytest.approx(-own.log().mean().item(), rel=1e-5)


def test_unsure_is_where_the_larger_probability_is_below_nine_tenths():
    train, net = points(), untrained_spirals()
    with torch.no_grad():  # at 3 of 10 points, of two classes, the logits shall differ by < log 9
        scale = math.log(9) / net(train.tensors[0]).diff(dim=1).abs().quantile(0.3)
        for parameter in net.decoder[-1].parameters():
            parameter.mul_(scale)
    found, panel = spirals.seen(net, train, points(1))
    square = (panel.probabilities.amax(-1) < 0.9).double().mean().item()
    assert found.unsure_points == pytest.approx(30, abs=0.5)
    assert found.unsure == pytest.approx(100 * square, rel=1e-5)


def test_a_table_of_seeds_shows_means_and_standard_deviations():
    values = [1.0, 2.5, 7.0]
    runs = [dict.fromkeys(spirals.ARMS, spirals.Findings(*[value] * 7)) for value in values]
    body = printed(spirals.table("Title", runs)).split("─\n")[1]
    digits = [count for _, count in spirals.HEADS]
    means, deviations = (
        [f"{value:.{count}f}" for count in digits] for value in (3.5, np.std(values, ddof=1))
    )
    assert re.findall(r"\d\S*", body) == (means + deviations) * 3
    assert body.count("±") == 3 * 7


@pytest.fixture
def drawn(monkeypatch, capsys, tmp_path, threads):
    """What a call prints, and the files that it leaves in the current folder."""

    def called(*options):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["spirals.py", "--steps=2", *options])
        spirals.main()
        return capsys.readouterr().out, {f.name: f.read_bytes() for f in folder.iterdir()}

    return called


def test_the_spirals_are_printed_and_drawn(drawn):
    said, files = drawn()
    rows = [line.split() for line in said.splitlines() if line.startswith(tuple(spirals.ARMS))]
    assert [len(row) for row in rows] == [2 + 7] * 3
    assert "…" not in said
    # not spirals.png, which is under version control where the script lies
    assert list(files) == ["two_spirals.png"]
    assert files["two_spirals.png"].startswith(b"\x89PNG")


def test_of_several_seeds_the_first_is_drawn(drawn):
    several, files = drawn("--seed=4", "--seeds=2", "--out=figure.png")
    first, alone = drawn("--seed=4", "--out=figure.png")
    assert several.startswith(first)
    assert files == alone
    assert [several.count(f"seed {seed} ") for seed in (3, 4, 5, 6)] == [0, 1, 1, 0]
    assert several.count("±") == 1 + 3 * 7


def test_no_seed_is_no_run(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["spirals.py", "--seeds=0"])
    with pytest.raises(SystemExit):
        spirals.main()
    assert "expected --seeds of at least 1, but got 0" in capsys.readouterr().err


def test_a_split_is_stratified_whole_and_its_seeds_own():
    train, test = flattening.split(0)
    both = torch.cat([train.tensors[0], test.tensors[0]])
    counts = [data.tensors[1].bincount() for data in (train, test)]
    assert len(both.unique(dim=0)) == len(both) == 1797
    assert (counts[0] / 1000 - counts[1] / 797).abs().max() < 0.002
    assert not torch.equal(train.tensors[0], flattening.split(1)[0].tensors[0])


@pytest.mark.parametrize(("kind", "centred"), [("", False), ("centred ", True)])
def test_statistics_are_those_of_the_matrix_of_a_class_mean_over_classes(kind, centred):
    (_, data), net = flattening.split(0), untrained_flattening()
    row = flattening.measured(net, data)
    images, labels = data.tensors
    values = spectra(net.bottleneck(net.encoder(images)).detach(), labels, centred=centred)
    shares = values / values.sum(1, keepdim=True)
    ranks = (-(shares * shares.log()).sum(1)).exp()
    assert row[f"{kind}largest"] == pytest.approx(values[:, 0].mean().item(), rel=1e-5)
    assert row[f"{kind}rest"] == pytest.approx(values[:, 1:].sum(1).mean().item(), rel=1e-5)
    assert row[f"{kind}rank"] == pytest.approx(ranks.mean().item(), rel=1e-5)


def test_a_table_shows_means_and_paired_differences_with_their_interval():
    base, other = [10.0, 12.5, 11.0], [8.0, 10.0, 9.7]
    runs = {"none": [{"a": v} for v in base], "some": [{"a": v} for v in other]}
    text = printed(flattening.table("Title", runs, {"a": "A"}))
    low, high = ttest_rel(other, base).confidence_interval()
    assert f"none     {np.mean(base):.1f} ± {np.std(base, ddof=1):.1f}" in text
    assert f"Δ some   {(low + high) / 2:.1f} ± {(high - low) / 2:.1f}" in text


def test_the_flattening_is_printed_and_written(monkeypatch, capsys, tmp_path):
    out = tmp_path / "flattening.json"
    options = ["--seeds=2", "--epochs=1", "--width=8", "--units=3", f"--json={out}"]
    monkeypatch.setattr(sys, "argv", ["flattening.py", *options])
    flattening.main()
    printed = capsys.readouterr().out
    runs = json.loads(out.read_text())
    assert printed.count("Δ manifold mixup") == 4
    assert "…" not in printed
    assert [len(rows) for rows in runs.values()] == [2, 2, 2]
    assert list(runs) == list(flattening.ARMS)


def test_a_single_seed_has_no_interval(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["flattening.py", "--seeds=1"])
    with pytest.raises(SystemExit):
        flattening.main()
    assert "expected --seeds of at least 2 for an interval, but got 1" in capsys.readouterr().err

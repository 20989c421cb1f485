import pytest

from lightning_mmix.cuts.sites import Site, choose, nearest_cuts, not_first


def sites(*rows):
    """Sites from (name, depth) or (name, depth, whether it is a cut)."""
    rows = [(*row, True) if len(row) == 2 else row for row in rows]
    return {name: Site(name, "", (4,), depth, is_cut) for name, depth, is_cut in rows}


RESNET = [
    ("input", 0.0), ("net.conv1", 0.06), ("net.maxpool", 0.06), ("net.layer1.0", 0.2),
    ("net.layer1.1", 0.32), ("net.layer1", 0.32), ("net.layer2.0", 0.42), ("net.layer2", 0.55),
    ("net.layer3", 0.77), ("net.layer4", 0.99), ("net.fc", 1.0), ("net", 1.0),
]  # fmt: skip
ENCODER = [
    ("input", 0.0, False), ("bert.emb.words", 0.0), ("bert.emb.norm", 0.0), ("bert.emb", 0.0),
    *[(f"bert.encoder.{i}", (i + 1) / 8 - 0.001) for i in range(8)],
    ("bert.encoder", 0.999), ("head", 1.0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        (RESNET, ["input", "net.layer1", "net.layer2"]),
        (ENCODER, ["bert.emb", "bert.encoder.1", "bert.encoder.3"]),
        ([("input", 0.0), ("0", 0.4), ("1", 0.4), ("2", 1.0)], ["input", "1"]),
        ([("embedding", 0.0), ("lstm", 0.99), ("head", 1.0)], ["embedding", "lstm"]),
        ([("input", 0.0), ("down.0", 0.05), ("down", 0.1), ("head", 1.0)], ["input", "down"]),
        ([("input", 0.0), ("a", 0.3, False), ("b", 0.5, None), ("c", 0.7)], ["input", "b"]),
        ([("input", 0.0), ("a", 0.02), ("a.b", 0.2), ("a.c", 0.5)], ["input", "a.b", "a.c"]),
        (
            [("input", 0.0), ("a.b", 0.3), ("a.c", 0.6), ("a", 0.7), ("pool", 0.7), ("fc", 1.0)],
            ["input", "a.b", "a.c"],
        ),
        ([("input", 0.0), ("drop", 0.0), ("body", 1.0)], ["input"]),
        ([("input", 0.0, False), ("unused", None, False), ("head", 1.0)], []),
    ],
)
def test_auto_takes_the_input_and_what_lies_nearest_to_a_quarter_and_to_half(rows, chosen):
    assert choose(sites(*rows)) == chosen


@pytest.mark.parametrize("stages", [(0.192, 0.444, 0.80), (0.101, 0.232, 0.89), (0.31, 0.65, 1.0)])
def test_auto_takes_the_first_two_stages_however_deep_the_third_is(stages):
    rows = [(f"layer{i + 1}", depth) for i, depth in enumerate(stages)]
    blocks = [("layer3.0", (stages[1] + stages[2]) / 2)]
    assert choose(sites(("input", 0.0), *rows[:2], *blocks, rows[2])) == [
        "input", "layer1", "layer2"
    ]  # fmt: skip


def test_in_place_of_the_input_the_layer_is_offered_that_auto_takes():
    assert nearest_cuts(sites(*ENCODER), "input") == "mix 'bert.emb' after it instead"


def test_the_nearest_cuts_are_told_in_words():
    known = sites(("a", 0.0), ("b", 0.1, False), ("c", 0.2), ("d", 0.3, False))
    assert nearest_cuts(known, "b") == "mix 'a' before or 'c' after it instead"
    assert nearest_cuts(known, "d") == "mix 'c' before it instead"
    assert nearest_cuts(sites(("a", 0.0, False), ("b", 0.9)), "a") == ("mix 'b' after it instead")
    assert nearest_cuts(sites(("a", 0.0, False)), "a") == "there is none to mix before or after it"


def test_what_ends_with_the_network_is_no_nearest_cut():
    known = sites(("a", 0.1), ("b", 0.2, False), ("head", 1.0), ("whole", 1.0))
    assert nearest_cuts(known, "b") == "mix 'a' before it instead"
    only = sites(("b", 0.2, False), ("head", 1.0))
    assert nearest_cuts(only, "b") == "there is none to mix before or after it"


def test_of_what_never_runs_itself_the_cuts_in_it_are_the_nearest():
    known = sites(
        ("a", 0.1), ("b.0", 0.2), ("b.1", 0.3, False), ("b.2", 0.4), ("bc", 0.5), ("d", 1.0)
    )
    known = {"b": Site("b", "", None, None, False), **known}
    assert nearest_cuts(known, "b") == "of what it holds, 'b.0' or 'b.2' can be mixed"


def test_instead_of_a_layer_that_never_runs_those_of_similar_names_are_told():
    aux = ("net.layer3.drop", None, False)
    assert nearest_cuts(sites(*RESNET, aux), aux[0]) == (
        "name one that does, as 'net.layer3' or 'net.layer2.0'"
    )
    assert nearest_cuts(sites(RESNET[0], aux), aux[0]) == "name one that does, as 'input'"


@pytest.mark.parametrize(
    ("shape", "reason", "turns"),
    [
        ((), "puts out one number for all samples", False),
        ((7, 5, 4), "is not batch-first: (7, 5, 4) of 5 samples", True),
        ((10, 5, 4), "is not batch-first: (10, 5, 4) of 5 samples", True),
        ((10, 4), "puts out 2 rows for each sample", False),
        ((7, 4), "is not batch-first: (7, 4) of 5 samples", False),
    ],
)
def test_it_is_told_what_a_tensor_holds_instead_of_a_row_for_each_sample(shape, reason, turns):
    why = not_first(shape, 5)
    assert why.reason == reason
    assert bool(why.advice) is turns

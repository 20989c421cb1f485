import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import integrate, stats
from torch import nn

from lightning_mmix.core.plan import Recipe, draw

LAYERS = {"input": 1.0, "layer1": 2.0, "layer2": 1.0}


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
def test_lam_is_a_folded_beta(alpha):
    lams = [float(draw(Recipe(alpha, LAYERS), 2, seed=1, batch_idx=i).lam) for i in range(20_000)]
    beta = stats.beta(alpha, alpha)

    def folded(x):  # P(max(λ, 1 - λ) ≤ x)
        return np.where(x < 0.5, 0, beta.cdf(x) - beta.cdf(1 - x))

    assert stats.kstest(lams, folded).pvalue > 0.01


def test_layers_come_as_often_as_their_weights_say():
    names = [draw(Recipe(1, LAYERS), 2, seed=1, batch_idx=i).layer for i in range(20_000)]
    counts = [names.count(name) for name in LAYERS]
    assert stats.chisquare(counts, [5_000, 10_000, 5_000]).pvalue > 0.01


def test_partners_are_uniform_permutations():
    plans = [draw(Recipe(1, LAYERS), 3, seed=1, batch_idx=i) for i in range(20_000)]
    seen, counts = np.unique([p.partner.numpy() for p in plans], axis=0, return_counts=True)
    assert len(seen) == math.factorial(3)
    assert stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize("other", [{"rank": 1}, {"epoch": 1}, {"seed": 2}])
def test_streams_of_other_ranks_epochs_and_seeds_are_uncorrelated(other):
    args = [{"seed": 1, "batch_idx": i} for i in range(2_000)]
    here = [float(draw(Recipe(1, LAYERS), 4, **each).lam) for each in args]
    there = [float(draw(Recipe(1, LAYERS), 4, **{**each, **other}).lam) for each in args]
    assert stats.pearsonr(here, there).pvalue > 0.01


def test_consecutive_batches_are_uncorrelated():
    lams = [float(draw(Recipe(1, LAYERS), 4, seed=1, batch_idx=i).lam) for i in range(2_001)]
    assert stats.pearsonr(lams[1:], lams[:-1]).pvalue > 0.01


def test_ranks_share_the_layer_and_nothing_else():
    recipe = Recipe(1, LAYERS)
    pairs = [
        (draw(recipe, 9, seed=1, batch_idx=i), draw(recipe, 9, seed=1, batch_idx=i, rank=1))
        for i in range(50)
    ]
    assert all(a.layer == b.layer for a, b in pairs)
    assert all(a.lam != b.lam for a, b in pairs)
    assert not all(torch.equal(a.partner, b.partner) for a, b in pairs)


def test_a_new_process_draws_the_same_plan():
    code = (
        "from lightning_mmix.core.plan import Recipe, draw;"
        "p = draw(Recipe(2, {'input': 1.0, 'a': 1.0}), 5, seed=3, epoch=2, batch_idx=7, rank=1);"
        "print(p.layer, float(p.lam).hex(), p.partner.tolist())"
    )
    plan = draw(Recipe(2, {"input": 1.0, "a": 1.0}), 5, seed=3, epoch=2, batch_idx=7, rank=1)
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == f"{plan.layer} {float(plan.lam).hex()} {plan.partner.tolist()}"


def test_drawing_leaves_the_global_generators_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    draw(Recipe(1, LAYERS), 8, seed=1)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()


def test_a_layer_of_weight_zero_is_never_drawn():
    recipe = Recipe(1, {"a": 0.0, "b": 1.0, "c": 0.0})
    assert {draw(recipe, 2, seed=i).layer for i in range(200)} == {"b"}


def test_nothing_is_mixed_for_alpha_zero_or_a_batch_of_one():
    assert draw(Recipe(0, LAYERS), 8, seed=1) is None
    assert draw(Recipe(1, LAYERS), 1, seed=1) is None
    assert draw(Recipe(1, LAYERS), 0, seed=1) is None


@pytest.mark.parametrize("alpha", [1e-300, 1e-3, 1e6])
def test_lam_stays_in_range_for_extreme_alpha(alpha):
    lams = [float(draw(Recipe(alpha, LAYERS), 2, seed=i).lam) for i in range(100)]
    assert all(0.5 <= lam <= 1 for lam in lams)


@pytest.mark.parametrize("alpha", [-1.0, math.nan, math.inf])
def test_alpha_out_of_range_is_refused(alpha):
    with pytest.raises(ValueError, match=f"expected a finite alpha ≥ 0, but got {alpha}"):
        Recipe(alpha, LAYERS)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_weight_out_of_range_is_refused(weight):
    with pytest.raises(ValueError, match=f"expected a finite weight ≥ 0 for 'a', but got {weight}"):
        Recipe(1, {"a": weight})


def test_weights_that_are_all_zero_are_refused():
    with pytest.raises(
        ValueError, match=r"expected a layer with a weight > 0, but got \{'a': 0.0\}"
    ):
        Recipe(1, {"a": 0.0})


@pytest.mark.parametrize("names", [["b", "a", "c"], ("b", "a", "c")])
def test_names_alone_are_drawn_as_with_equal_weights(names):
    weighed = Recipe(1, {"b": 1.0, "a": 1.0, "c": 1.0})
    for i in range(50):
        plan, expected = (
            draw(each, 3, seed=1, batch_idx=i) for each in (Recipe(1, names), weighed)
        )
        assert (plan.layer, plan.lam) == (expected.layer, expected.lam)
        assert torch.equal(plan.partner, expected.partner)


def test_a_set_of_names_is_drawn_in_one_order_in_all_processes():
    assert Recipe(1, {"c", "a", "b"}).weights == {"a": 1.0, "b": 1.0, "c": 1.0}
    assert list(Recipe(1, {"c", "a", "b"}).weights) == ["a", "b", "c"]


NAMES = r"expected a list of layer names, as \['input', 'net.layer1'\], or a mapping of names to "


@pytest.mark.parametrize(
    ("layers", "got"),
    [
        ("auto", "'auto'; only ManifoldMixup and Mixer have a model to choose by"),
        ("net.layer1", "'net.layer1'"),
        (None, "None"),
        (3, "3"),
        ([0, 1], "[0, 1]"),
        ({0: 1.0}, "{0: 1.0}"),
        ([], "[]"),
        (b"net", "b'net'"),
        (nn.Sequential(nn.Identity()), "Sequential"),
        (nn.ModuleDict({"a": nn.Identity()}), "ModuleDict"),
        (torch.ones(200), "float32 (200,)"),
        (np.array(["a", "b"]), "array(['a', 'b'], dtype='<U1')"),
        (["a", *range(99)], "list of 100 str"),
        ((name for name in ["a"]), "generator"),
    ],
)
def test_layers_that_are_no_names_are_refused(layers, got):
    with pytest.raises(ValueError, match=f"^{NAMES}weights, but got layers=") as error:
        Recipe(1, layers)
    assert str(error.value).partition("layers=")[2].startswith(got)


def test_a_layer_that_is_named_twice_is_refused():
    with pytest.raises(ValueError, match="layer 'b' is named twice"):
        Recipe(1, ["a", "b", "b"])


@pytest.mark.parametrize("seed", [0, 2**53 + 1, 2**63, 2**64 - 1])
def test_a_draw_is_that_of_a_fresh_generator_of_its_own(seed):
    key = np.array([seed, 1], dtype=np.uint64)
    own = np.random.Generator(np.random.Philox(key=key, counter=[0, 3, 7, 2]))
    plan = draw(Recipe(2, LAYERS), 9, seed=seed, epoch=2, batch_idx=7, rank=3)
    lam = own.beta(2, 2)
    assert float(plan.lam) == max(lam, 1 - lam)
    assert plan.partner.tolist() == own.permutation(9).tolist()


def test_large_seeds_differ():
    plans = [draw(Recipe(2, LAYERS), 9, seed=2**63 + i) for i in range(3)]
    assert len({float(plan.lam) for plan in plans}) == 3


def test_threads_do_not_disturb_each_other():
    def lams(seed):
        return [float(draw(Recipe(2, LAYERS), 9, seed=seed, batch_idx=i).lam) for i in range(500)]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lams, range(4)))
    assert together == [lams(seed) for seed in range(4)]


# drawn before there were other kinds, and other frequencies, than all and mixup
OF_OLD = [
    ({"seed": 1}, "layer1", "0x1.6e5ec949108bbp-1", [3, 2, 0, 1, 4]),
    (
        {"seed": 3, "epoch": 2, "batch_idx": 7, "rank": 1},
        *("layer2", "0x1.69f02b95b9180p-1", [2, 0, 4, 1, 3]),
    ),
    (
        {"seed": 2**64 - 1, "epoch": 5, "batch_idx": 11, "rank": 3},
        *("input", "0x1.aa8e414e03f3bp-1", [4, 0, 1, 3, 2]),
    ),
]


@pytest.mark.parametrize("kind", ["mixup", {"mixup": 1, "cutmix": 0}])
@pytest.mark.parametrize("prob", [1.0, 0.7])
@pytest.mark.parametrize(("place", "layer", "lam", "partner"), OF_OLD)
def test_old_seeds_draw_what_they_drew(place, layer, lam, partner, prob, kind):
    plan = draw(Recipe(2.0, LAYERS, prob, kind), 5, **place)
    assert prob < 1 or plan is not None
    if plan is not None:
        assert (plan.layer, float(plan.lam).hex(), plan.partner.tolist()) == (layer, lam, partner)
        assert (plan.kind, plan.labels, plan.box) == ("mixup", "paired", None)


def test_prob_says_how_often_and_changes_nothing_else():
    places = [{"seed": 1, "batch_idx": i} for i in range(20_000)]
    every = [draw(Recipe(1, LAYERS), 3, **place) for place in places]
    some = [draw(Recipe(1, LAYERS, prob=0.3), 3, **place) for place in places]
    are_mixed = np.array([plan is not None for plan in some])
    assert stats.binomtest(int(are_mixed.sum()), len(places), 0.3).pvalue > 0.01
    for plan, one in zip(every, some, strict=True):
        assert one is None or (one.layer, one.lam) == (plan.layer, plan.lam)
        assert one is None or torch.equal(one.partner, plan.partner)
    for drawn in ([p.layer for p in every], [str(p.partner.tolist()) for p in every]):
        _, groups = np.unique(drawn, return_inverse=True)
        table = np.histogram2d(groups, are_mixed, bins=(groups.max() + 1, 2))[0]
        assert stats.chi2_contingency(table).pvalue > 0.01
    lams = np.array([float(plan.lam) for plan in every])
    assert stats.ks_2samp(lams[are_mixed], lams[~are_mixed]).pvalue > 0.01
    assert stats.pearsonr(are_mixed[1:], are_mixed[:-1]).pvalue > 0.01


def test_prob_zero_mixes_nothing_and_ranks_share_the_coin():
    place = {"seed": 1, "epoch": 2}
    assert draw(Recipe(1, LAYERS, prob=0), 3, seed=1) is None
    for i in range(50):
        plans = [draw(Recipe(1, LAYERS, prob=0.5), 3, **place, batch_idx=i, rank=r) for r in (0, 1)]
        assert (plans[0] is None) == (plans[1] is None)


def test_kinds_come_as_often_as_their_weights_say_on_all_ranks_alike():
    recipe = Recipe(1, LAYERS, kind={"mixup": 1.0, "cutmix": 3.0})
    plans = [draw(recipe, 3, seed=1, batch_idx=i) for i in range(20_000)]
    are_pasted = np.array([plan.kind == "cutmix" for plan in plans])
    assert stats.binomtest(int(are_pasted.sum()), len(plans), 0.75).pvalue > 0.01
    layers = np.array([[*LAYERS].index(plan.layer) for plan in plans])
    table = np.histogram2d(layers, are_pasted, bins=(3, 2))[0]
    assert stats.chi2_contingency(table).pvalue > 0.01
    for i in range(50):
        assert draw(recipe, 3, seed=1, batch_idx=i, rank=1).kind == plans[i].kind


def test_a_box_has_a_plain_beta_and_a_uniform_centre():
    recipe = Recipe(0.5, LAYERS, kind="cutmix")
    plans = [draw(recipe, 3, seed=1, batch_idx=i) for i in range(5_000)]
    assert stats.kstest([float(p.lam) for p in plans], stats.beta(0.5, 0.5).cdf).pvalue > 0.01
    for centres in torch.stack([p.box for p in plans]).numpy().T:
        assert stats.kstest(centres, "uniform").pvalue > 0.01
    paired = draw(Recipe(0.5, LAYERS), 3, seed=1)
    assert float(paired.lam) in (float(plans[0].lam), 1 - float(plans[0].lam))
    assert torch.equal(paired.partner, plans[0].partner)


def test_own_labels_have_a_lam_each_that_is_not_folded():
    recipe = Recipe(0.5, LAYERS, labels="own")
    plans = [draw(recipe, 4, seed=1, batch_idx=i) for i in range(5_000)]
    lams = torch.stack([plan.lam for plan in plans]).numpy()
    assert plans[0].labels == "own"
    assert stats.kstest(lams.flatten(), stats.beta(1.5, 0.5).cdf).pvalue > 0.01
    assert stats.pearsonr(lams[:, 0], lams[:, 1]).pvalue > 0.01


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_own_labels_have_the_expectation_of_paired_ones(alpha):
    """All permutations of a tiny batch, and quadrature over λ, of a loss that is not linear."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 2, dtype=torch.float64, generator=generator)
    w = torch.randn(2, 4, dtype=torch.float64, generator=generator)
    y = torch.tensor([0, 3, 1])

    def losses(lam, partner, target):
        mixed = lam * x + (1 - lam) * x[partner]
        return float(F.cross_entropy(mixed.tanh() @ w, target, reduction="sum"))

    def paired(lam):
        each = [
            lam * losses(lam, list(p), y) + (1 - lam) * losses(lam, list(p), y[list(p)])
            for p in permutations(range(3))
        ]
        return stats.beta(alpha, alpha).pdf(lam) * np.mean(each)

    def own(lam):
        each = [losses(lam, list(p), y) for p in permutations(range(3))]
        return stats.beta(alpha + 1, alpha).pdf(lam) * np.mean(each)

    def integral(function):
        return integrate.quad(function, 0, 1, epsabs=1e-12, epsrel=1e-12)[0]

    assert integral(own) == pytest.approx(integral(paired), abs=1e-10)
    assert abs(integral(lambda lam: own(lam) * lam) - integral(paired)) > 1e-3


def test_a_plan_is_sent_with_all_that_has_a_row_for_each_sample():
    meta = torch.device("meta")
    boxed = draw(Recipe(1, LAYERS, kind="cutmix"), 3, seed=1).to(meta)
    assert (boxed.partner.device, boxed.lam.device.type, boxed.box.device.type) == (
        *(meta, "cpu"),
        "cpu",
    )
    own = draw(Recipe(1, LAYERS, labels="own"), 3, seed=1).to(meta)
    assert (own.partner.device, own.lam.device, own.lam.shape) == (meta, meta, (3,))
    assert own.lam.dtype == torch.float64


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"prob": 1.5}, r"expected prob in \[0, 1\], but got 1.5"),
        ({"kind": "cutmx"}, "there is no kind='cutmx'; did you mean 'cutmix'?"),
        ({"kind": {"mixpu": 1}}, "there is no kind='mixpu'; did you mean 'mixup'?"),
        ({"kind": {"mixup": 0}}, r"expected a kind with a weight > 0, but got \{'mixup': 0\}"),
        ({"kind": {"mixup": -1}}, "expected a finite weight ≥ 0 for 'mixup', but got -1"),
        ({"labels": "pair"}, "there is no labels='pair'; did you mean 'paired'?"),
        ({"labels": "own", "kind": "cutmix"}, "use kind='mixup' or labels='paired'"),
        ({"labels": "own", "kind": {"mixup": 1, "cutmix": 1}}, "right expectation for interpol"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Recipe(1, LAYERS, **kwargs)
    Recipe(1, LAYERS, labels="own", kind={"mixup": 1, "cutmix": 0})

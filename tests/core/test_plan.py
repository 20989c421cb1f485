import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy import stats

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

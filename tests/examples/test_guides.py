"""The guides: their code runs, what it trains is mixed exactly, and what they say is so."""

import ast
import contextlib
import io
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._dynamo
from torch import nn

from lightning_mmix import ManifoldMixup, check, cut_test
from lightning_mmix.batches import find_input, find_targets

GUIDES = Path(__file__).parents[2] / "examples" / "guides"
pytestmark = [
    pytest.mark.filterwarnings("ignore:GPU available"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
]


def sections(page):
    """The code of each section of a page by its title, behind that with which all begin."""
    text = (GUIDES / page).read_text()
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    begin, *codes = ("\n".join(re.findall(r"^```python\n(.*?)^```", p, re.M | re.S)) for p in parts)
    return {title: f"{begin}\n{code}" for title, code in zip(parts[1::2], codes[1::2], strict=True)}


def imported(code):
    """The packages that a section imports."""
    nodes = [*ast.walk(ast.parse(code))]
    names = [each.name for node in nodes if isinstance(node, ast.Import) for each in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


def listed():
    """The rows of the table of recipes: title, target, and whether one has to name it."""
    rows = re.findall(r"^\| \[(.*)\]\(#.*\) \| (.*) \| (.*) \|$", PAGE, re.MULTILINE)
    return {title: must_name.split()[0].strip(",:") for title, _, must_name in rows}


OPTIONAL = {"sklearn", "timm", "torchvision", "transformers"}
PAGE = (GUIDES / "recipes.md").read_text()
ALL = [(page.name, title) for page in sorted(GUIDES.glob("*.md")) for title in sections(page.name)]
of_recipes = pytest.mark.parametrize("title", listed())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a section, once, and gives what it leaves, and what it prints last."""

    @cache
    def leave(page, title):
        code = sections(page)[title]
        for package in OPTIONAL & imported(code):
            pytest.importorskip(package)
        names, printed = {"__name__": "guide"}, io.StringIO()
        # a mixer that another test left on a model has compiled code look at hooks
        as_ever = torch._dynamo.config.patch(skip_nnmodule_hook_guards=True)
        with contextlib.redirect_stdout(printed), as_ever:
            exec(compile(code, page, "exec"), names)
        return {**names, "printed": printed.getvalue().splitlines()[-1:]}

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("guides"))
        yield leave


@pytest.mark.parametrize(("page", "title"), ALL)
def test_a_section_runs(page, title, run):
    assert run(page, title)


@of_recipes
def test_a_recipe_is_exact(title, run):
    left = run("recipes.md", title)
    assert left["mixup"].layers_
    assert left["printed"] == ["True"], str(
        check(left["module"], left["data"], mixup=left["mixup"])
    )


@of_recipes
def test_the_table_says_what_has_to_be_named(title, run):
    left = run("recipes.md", title)
    batch, mixup = next(iter(left["data"])), left["mixup"]
    targets = [id(target) for target in find_targets(batch, mixup.settings.target)]
    try:
        by_itself = [id(target) for target in find_targets(batch)] == targets
    except ValueError:
        by_itself = False
    assert by_itself == (listed()[title] == "no")
    assert by_itself == (mixup.settings.target is None)


def test_a_weight_that_is_not_named_is_told_of(run):
    left = run("recipes.md", "Weights of samples")
    for target in (None, "y"):
        checked = check(left["module"], left["data"], mixup=ManifoldMixup(target=target))
        assert not checked.is_exact
        assert any("the target along with entry 'weight'" in each for each in checked.findings)


X, Y = torch.ones(3, 2), torch.arange(3)


@pytest.mark.parametrize(
    ("batch", "count"),
    [
        ({"x": X, "y": Y, "sample_weight": Y + 0.5}, 2),
        ((X, (Y, Y + 0.5)), 2),
        ({"x": X, "label": {"digit": Y, "ink": Y + 0.5}}, 2),
        ((torch.ones(3, 1, 8, 8), torch.ones(3, 8, 8).long()), 1),
    ],
)
def test_these_are_found_by_themselves(batch, count):
    assert len(find_targets(batch)) == count


def test_these_are_asked_about():
    with pytest.raises(ValueError, match="input=<key, index or path>"):
        find_input((X, Y, Y + 0.5))
    with pytest.raises(ValueError, match=r"look alike.* say so: target=1"):
        find_targets((X, X + 1))


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(2, 5), nn.Tanh())
        self.first, self.second = (nn.Sequential(nn.Linear(5, 4), nn.Tanh()) for _ in range(2))

    def forward(self, x):
        hidden = self.trunk(x)
        return self.first(hidden), self.second(hidden)


def test_of_two_heads_what_comes_before_them_can_be_mixed():
    sites = cut_test(TwoHeads(), torch.randn(3, 2)).sites
    cuts = {name.split(".")[0] for name, site in sites.items() if site.is_cut}
    assert cuts == {"input", "trunk"}


def test_of_a_text_classifier_auto_takes_the_embeddings_and_two_more(run):
    left = run("recipes.md", "Text")
    first, *others = [each.layer for each in check(left["module"], left["data"]).agreements]
    assert first == "net.bert.embeddings"
    assert len(others) == 2


def test_mixing_the_squared_error_has_the_gradient_of_a_mixed_target():
    out, y, other = torch.randn(3, 7, dtype=torch.float64).requires_grad_()
    mixed = 0.7 * (out - y) ** 2 + 0.3 * (out - other) ** 2
    (found,) = torch.autograd.grad(mixed.mean(), out)
    (expected,) = torch.autograd.grad(((out - (0.7 * y + 0.3 * other)) ** 2).mean(), out)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("alpha", "low", "high"), [(0.2, 0.9, 1.0), (2.0, 0.5, 0.75)])
def test_how_strongly_alpha_mixes_in_two_of_three_steps(alpha, low, high):
    weights = np.random.default_rng(0).beta(alpha, alpha, 4000)
    larger = np.maximum(weights, 1 - weights)
    assert np.mean((low <= larger) & (larger <= high)) == pytest.approx(2 / 3, abs=0.04)


def test_a_mixed_batch_costs_half_a_nat_at_least():
    lam = (np.arange(10_000) + 0.5) / 10_000  # alpha = 1, and two labels that differ
    entropy = -lam * np.log(lam) - (1 - lam) * np.log(1 - lam)
    assert entropy.mean() == pytest.approx(0.5, abs=1e-4)

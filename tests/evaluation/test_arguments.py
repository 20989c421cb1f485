"""Arguments of conditions and units, of all types."""

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pytest
import torch

from lightning_mmix.evaluation.attacks import FGSM, PGD, Ball
from lightning_mmix.evaluation.condition import Condition
from lightning_mmix.evaluation.distortions import Corruption, Rotation, Shear, Zoom
from lightning_mmix.evaluation.robustness import Units
from lightning_mmix.evaluation.standard import GaussianNoise, standard_conditions

if TYPE_CHECKING:
    from somewhere import Missing

ALL = [
    FGSM(0.5),
    PGD(0.5, "l2", steps=2, step_size=0.25),
    Ball(0.5, "l2"),
    GaussianNoise(0.5),
    Rotation(30),
    Shear(30),
    Zoom(0.75),
    Corruption("contrast", 4),
    Units(-1.0, 2.0, 0.5, 0.25),
]
each = pytest.mark.parametrize("made", ALL, ids=lambda made: type(made).__name__)
NO_NUMBERS = ["0.1", "", b"1", 1j, [], ["a"], [0.1, None], (0.1, True), {}, {1, 2}, float]
WRONG = [
    *(*NO_NUMBERS, math.nan, [0.1], range(3), torch.tensor(0.1), torch.ones(2, 30)),
    *(np.array(0.1), np.array([1, 2]), np.array("a"), np.str_("l1")),
]


def names(made):
    """The arguments that are one thing each."""
    several = ("mean", "std") if isinstance(made, Units) else ()
    return [field.name for field in fields(made) if field.name not in several]


@each
@pytest.mark.parametrize("wrong", WRONG)
def test_an_argument_of_a_wrong_type_is_refused_in_one_sentence(made, wrong):
    for name in names(made):
        with pytest.raises(ValueError, match=rf"^expected .*{name}.*, but got ") as error:
            replace(made, **{name: wrong})
        assert len(str(error.value)) < 160
        assert "\n" not in str(error.value)


@each
@pytest.mark.parametrize("wrong", [True, np.bool_(False)])
def test_a_bool_is_no_number(made, wrong):
    for name in set(names(made)) - {"random_start"}:
        with pytest.raises(ValueError, match=rf"^expected .*{name}.*, but got "):
            replace(made, **{name: wrong})


@pytest.mark.parametrize("name", ["mean", "std"])
@pytest.mark.parametrize("wrong", [None, True, torch.ones(1, 2), *NO_NUMBERS])
def test_what_the_data_were_normalised_by_are_numbers(name, wrong):
    message = f"^expected a number or a list of numbers as {name}, but got "
    with pytest.raises(ValueError, match=message):
        Units(**{name: wrong})


@each
def test_none_is_refused_unless_it_says_something(made):
    for name in set(names(made)) - {"step_size"}:
        with pytest.raises(ValueError, match=f"^expected .*{name}.*, but got None$"):
            replace(made, **{name: None})
    assert PGD(0.1, step_size=None) == PGD(0.1)


@pytest.mark.parametrize("number", [2.5, 2.0, np.float64(2), "2"])
def test_a_whole_number_is_no_float(number):
    with pytest.raises(ValueError, match="expected a whole number as steps, but got "):
        PGD(0.1, steps=number)
    with pytest.raises(ValueError, match="expected a whole number as severity, but got "):
        Corruption("jpeg", number)


@pytest.mark.parametrize("floating", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("whole", [np.int64, np.uint8])
@each
def test_numbers_of_numpy_are_those_of_python(made, floating, whole):
    kinds = {float: floating, int: whole}
    given = {name: kinds.get(type(value), type(value))(value) for name, value in vars(made).items()}
    found = replace(made, **given)
    assert found == made
    if isinstance(made, Condition):
        assert found.name == made.name
        x = torch.rand(2, 1, 5, 4, generator=torch.Generator().manual_seed(1))
        loss = lambda x: x.flatten(1).square().sum(1)  # noqa: E731
        two = [one.perturb(x, loss, (0, 1), np.random.default_rng(2)) for one in (found, made)]
        torch.testing.assert_close(*two)


@pytest.mark.parametrize("numbers", [[0.5, 0.25], (0.5, 0.25), np.array([0.5, 0.25])])
def test_each_channel_may_have_numbers_of_its_own(numbers):
    units = Units(0.0, 1.0, numbers, torch.tensor([0.5, 0.25]))
    x = torch.tensor([[1.0, -1.0]])
    torch.testing.assert_close(units.of_data(x), torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(units.of_network(units.of_data(x)), x)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": math.nan}, "expected a finite mean, but got nan"),
        ({"mean": [0.5, math.inf]}, r"expected a finite mean, but got \[0.5, inf\]"),
        ({"std": math.inf}, "expected a finite std > 0, but got inf"),
        ({"std": [0.2, math.nan]}, r"expected a finite std > 0, but got \[0.2, nan\]"),
        ({"low": math.nan}, r"expected a range with low < high, but got \(nan, 1.0\)"),
        ({"mean": "0.5"}, "expected a number or a list of numbers as mean, but got '0.5'"),
        ({"std": ["a"] * 99}, "expected a number or a list of numbers as std, but got list of 99"),
    ],
)
def test_units_that_are_none_are_refused(given, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Units(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bounds": None}, "expected two numbers as bounds, but got None"),
        ({"bounds": "01"}, "expected two numbers as bounds, but got '01'"),
        ({"bounds": (0, 1, 2)}, r"expected two numbers as bounds, but got \(0, 1, 2\)"),
        ({"bounds": (0, math.nan)}, "expected finite bounds .* but got .0, nan."),
        ({"images": "yes"}, "expected True or False as images, but got 'yes'"),
        ({"fast": 1}, "expected True or False as fast, but got 1"),
        ({"std": None}, "expected a number as std, but got None"),
        ({"std": math.nan}, "expected a std ≥ 0, but got nan"),
        ({"std": -1}, "expected a std ≥ 0, but got -1"),
    ],
)
def test_what_the_standard_conditions_can_not_be_made_of_is_refused(given, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        standard_conditions(**{"bounds": (0, 1), "images": True, **given})


@pytest.mark.parametrize("bounds", [[0, 1], np.array([0, 1]), torch.tensor([0.0, 1.0])])
def test_bounds_may_be_an_array(bounds):
    expected = standard_conditions((0, 1), images=True)
    assert standard_conditions(bounds, images=np.bool_(True)) == expected


@dataclass(frozen=True)
class Own(Condition):
    """One of a user's."""

    share: float
    count: int = 3
    mask: torch.Tensor | None = None
    axis: ClassVar[str] = "share"
    family = "own"

    def perturb(self, x, loss, bounds, rng):
        return x


@dataclass(frozen=True)
class OfSomeoneElse(Own):
    missing: "Missing | None" = None


def test_conditions_of_ones_own_are_held_to_their_annotations_as_far_as_they_are_known():
    assert Own(0.5, mask=torch.ones(2)).strength == 0.5
    with pytest.raises(ValueError, match=r"expected a number as share, but got '0.5'"):
        Own("0.5")
    with pytest.raises(ValueError, match=r"expected a whole number as count, but got 0.5"):
        Own(0.5, 0.5)
    assert OfSomeoneElse("0.5").share == "0.5"

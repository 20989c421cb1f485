import pytest
from torch import nn

from lightning_mmix.core.layers import named_layers, select


def block():
    return nn.ModuleDict({"conv": nn.Linear(2, 2), "norm": nn.Identity()})


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1, self.layer2 = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2))
        self.blocks = nn.ModuleList([block(), block()])


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [
        (["layer2", "input", "layer1"], ["input", "layer1", "layer2"]),
        (["layer*"], ["layer1", "layer2"]),
        (["layer?.0"], ["layer1.0", "layer2.0"]),
        (["layer[2-9]"], ["layer2"]),
        (["blocks.*.*"], ["blocks.0.conv", "blocks.0.norm", "blocks.1.conv", "blocks.1.norm"]),
        (["blocks.0.conv"], ["blocks.0.conv"]),
    ],
)
def test_names_and_globs_choose_layers_in_the_models_order(layers, chosen):
    assert list(select(Net(), layers)) == chosen


def test_a_glob_gives_its_weight_to_each_match():
    assert select(Net(), {"layer*": 2.0, "input": 1.0}) == {
        "input": 1.0, "layer1": 2.0, "layer2": 2.0
    }  # fmt: skip


def test_the_marks_of_wrappers_are_no_part_of_a_name():
    model = nn.Module()
    model.net = nn.Module()
    model.net._orig_mod = nn.Sequential(nn.Linear(2, 2))
    assert list(named_layers(model)) == ["net", "net.0"]
    assert named_layers(model)["net"] is model.net
    assert list(select(model, ["net.0"])) == ["net.0"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["layer3"], "there is no layer 'layer3'; did you mean 'layer2' or 'layer1'"),
        (["stage*"], r"no layer matches 'stage\*'; did you mean"),
        (["blocks.*"], r"no layer matches 'blocks.\*'; did you mean 'blocks.0.conv'|'blocks"),
        (["layers/*"], r"no layer matches 'layers/\*'; did you mean 'layer\*'\?"),
        (["stage.?"], r"no layer matches 'stage.\?'; did you mean 'layer\*'"),
        (
            ["blocks"],
            r"'blocks', a ModuleList, never runs itself; did you mean",
        ),
        (["conv"], "no layer 'conv'; did you mean 'blocks.0.conv' or 'blocks.1.conv'[?]$"),
        (["[01].conv"], r"no layer matches .*; did you mean 'blocks.\[01\].conv'[?]$"),
        (["layer1", "layer1"], "layer 'layer1' is named twice"),
        (["layer1", "layer*"], r"layer 'layer1' is named twice, the second time by 'layer\*'"),
    ],
)
def test_what_cannot_be_chosen_is_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        select(Net(), layers)

import pytest
import torch
import torchvision
from torch import nn

from lightning_mmix.core.layers import named_layers
from lightning_mmix.core.space import Channels, channels_of_input, channels_of_layer, space_dims


def found(model, x, calls):
    """Layer → the dimensions of space of what it puts out, of layers with a sample in each row."""
    dims, handles = {}, []
    for name, module in named_layers(model).items():

        def hook(_module, _args, output, name=name):
            output = output[0] if isinstance(output, tuple) else output
            dims[name] = space_dims(output, channels_of_layer(model, name), name)

        if name in calls:
            handles.append(module.register_forward_hook(hook))
    with torch.no_grad():
        model.eval()(x)
    for handle in handles:
        handle.remove()
    return dims


IMAGES = torch.randn(2, 3, 64, 96)
FIRST, LAST = (2, 3), (1, 2)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            torchvision.models.resnet18,
            {"relu": FIRST, "maxpool": FIRST, "layer2": FIRST, "layer2.0.downsample": FIRST},
        ),
        (
            torchvision.models.convnext_tiny,
            {
                "features.1": FIRST,
                "features.1.0": FIRST,
                "features.1.0.block.0": FIRST,
                "features.1.0.block.1": LAST,
                "features.1.0.block.3": LAST,
                "features.1.0.block.4": LAST,
                "features.0.1": FIRST,
            },
        ),
        (
            torchvision.models.swin_t,
            {
                "features.0.0": FIRST,
                "features.0": LAST,
                "features.1.0.attn": LAST,
                "features.2": LAST,
                "features.2.reduction": LAST,
                "norm": LAST,
            },
        ),
    ],
)
def test_pictures_are_told_from_channels(make, expected):
    model = make()
    assert space_dims(IMAGES, channels_of_input(model, 4), "") == FIRST
    assert found(model, IMAGES, expected) == expected


def test_tokens_are_positions_and_the_class_token_is_one_of_them():
    model = torchvision.models.vit_b_16(image_size=32)
    expected = {
        "conv_proj": FIRST,
        "encoder.dropout": (1,),
        "encoder": (1,),
        "encoder.layers.encoder_layer_3": (1,),
        "encoder.layers.encoder_layer_3.mlp": (1,),
    }
    assert found(model, torch.randn(2, 3, 32, 32), expected) == expected
    assert space_dims(torch.randn(2, 3, 32, 32), channels_of_input(model, 4), "") == FIRST


class Positions(nn.Module):
    """Tables as long as there are positions, beside the signal and as its own layer."""

    def __init__(self):
        super().__init__()
        self.tokens, self.table = nn.Linear(6, 16), nn.Parameter(torch.randn(12, 16))
        self.add, self.drop = Add(), nn.Dropout()

    def forward(self, x):
        return self.drop(self.add(self.tokens(x) + self.table))


class Add(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(12, 16))

    def forward(self, x):
        return x + self.table


def test_a_table_of_positions_is_no_width():
    model = Positions()
    expected = {"tokens": (1,), "add": (1,), "drop": (1,)}
    assert found(model, torch.randn(2, 12, 6), expected) == expected


def test_lines_are_told_from_tokens():
    line = nn.Sequential(nn.Conv1d(5, 20, 3, padding=1, bias=False), nn.ReLU(), nn.BatchNorm1d(20))
    x = torch.randn(2, 5, 20)
    assert found(line, x, ["0", "1", "2"]) == {"0": (2,), "1": (2,), "2": (2,)}  # C = T
    assert space_dims(x, channels_of_input(line, 3), "") == (2,)
    tokens = nn.Sequential(nn.Linear(5, 20), nn.ReLU())
    assert found(tokens, torch.randn(2, 20, 5), ["0", "1"]) == {"0": (1,), "1": (1,)}


def test_a_recurrent_layer_puts_out_tokens():
    # as many positions as its gates are wide together
    model = nn.Sequential(nn.LSTM(6, 8, batch_first=True))
    assert found(model, torch.randn(2, 32, 6), ["0"]) == {"0": (1,)}


def test_one_channel_and_slopes_tell_nothing():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.PReLU(), nn.Conv2d(8, 1, 1), nn.Sigmoid())
    x = torch.randn(2, 3, 8, 1)
    assert found(model, x, ["0", "1", "2", "3"]) == dict.fromkeys("0123", FIRST)


def test_volumes_have_three_dimensions_of_space():
    model = nn.Sequential(nn.Conv3d(3, 4, 1), nn.ReLU())
    x = torch.randn(2, 3, 4, 4, 4)
    assert found(model, x, ["0", "1"]) == {"0": (2, 3, 4), "1": (2, 3, 4)}
    assert space_dims(x, channels_of_input(model, 5), "") == (2, 3, 4)


def test_lazy_parameters_tell_nothing():
    model = nn.Sequential(nn.LazyConv2d(4, 1))
    assert channels_of_layer(model, "0") == channels_of_input(model, 4) == Channels()


@pytest.mark.parametrize("shape", [(6,), (6, 5), (6, 5, 1, 1), (6, 2, 2, 2, 2, 2)])
def test_a_hidden_state_without_space_is_refused(shape):
    message = r"CutMix needs space, .*, but it is float32 \(6,.*; name another layer, or kind='m"
    with pytest.raises(ValueError, match=message):
        space_dims(torch.zeros(shape), Channels(), "it is")


def test_what_is_defined_first_need_not_run_first():
    class HeadFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.stem = nn.Linear(32, 5), nn.Conv2d(3, 32, 3)

    x = torch.randn(2, 3, 32, 32)
    assert space_dims(x, channels_of_input(HeadFirst(), 4), "") == FIRST


def test_a_recurrent_layer_behind_a_convolution_has_its_channels_last():
    model = nn.Sequential(nn.Conv1d(3, 14, 3), nn.LSTM(14, 20))
    assert space_dims(torch.randn(2, 14, 20), channels_of_layer(model, "1"), "") == (1,)


def test_a_transposed_convolution_puts_out_what_its_weight_has_second():
    model = nn.Sequential(nn.ConvTranspose2d(8, 6, 2, 2, bias=False))
    assert space_dims(torch.randn(2, 6, 8, 8), channels_of_layer(model, "0"), "") == FIRST

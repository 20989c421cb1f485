import colorsys
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from lightning_mmix.evaluation.distortions import Corruption, Rotation, Shear, Zoom

LOW, HIGH = -1.0, 2.0
KINDS = ["gaussian_blur", "brightness", "contrast", "jpeg", "pixelate"]


def make(*shape):
    return torch.from_numpy(np.random.default_rng(5).uniform(LOW, HIGH, shape))


def smooth(*shape):
    waves = ndimage.gaussian_filter(make(*shape).numpy(), (0, 0, 3, 3)) - 0.5
    return torch.from_numpy((0.5 + 4 * waves).clip(0, 1))


def distorted(condition, x, bounds=(LOW, HIGH), seed=0):
    return condition.perturb(x, None, bounds, np.random.default_rng(seed))


def angles(degrees, count, seed=0):
    return np.random.default_rng(seed).uniform(-degrees, degrees, count)


def moved(image, matrix):
    """The image under a linear map of (row, column) about its centre, by scipy."""
    inverse, centre = np.linalg.inv(matrix), (np.array(image.shape) - 1) / 2
    offset = centre - inverse @ centre
    pads = {"mode": "grid-constant", "cval": LOW}
    return ndimage.affine_transform(image, inverse, offset, order=1, **pads)


@pytest.mark.parametrize("sides", [(7, 7), (6, 9)])
def test_a_rotation_is_that_of_scipy(sides):
    x = make(3, 2, *sides)
    y = distorted(Rotation(170), x)
    for i, angle in enumerate(np.deg2rad(angles(170, 3))):
        # counter-clockwise for who looks at it, with rows that go down
        turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        for c in range(2):
            np.testing.assert_allclose(y[i, c], moved(x[i, c].numpy(), turn), atol=1e-5)


@pytest.mark.parametrize("sides", [(7, 7), (6, 9)])
def test_a_shear_is_that_of_scipy(sides):
    x = make(3, 2, *sides)
    y = distorted(Shear(60), x)
    for i, angle in enumerate(np.deg2rad(angles(60, 3))):
        for c in range(2):
            lean = moved(x[i, c].numpy(), [[1, 0], [-np.tan(angle), 1]])
            np.testing.assert_allclose(y[i, c], lean, atol=1e-5)


@pytest.mark.parametrize("factor", [0.4, 0.8, 1.3, 3.0])
def test_a_zoom_is_that_of_scipy(factor):
    x = make(2, 1, 6, 9)
    y = distorted(Zoom(factor), x)
    for i in range(2):
        np.testing.assert_allclose(y[i, 0], moved(x[i, 0].numpy(), factor * np.eye(2)), atol=1e-5)


def test_an_upright_line_leans_by_the_angle_of_the_shear():
    line = torch.zeros(1, 1, 9, 41)
    line[..., 20] = 1
    sheared = distorted(Shear(60), line, (0.0, 1.0))[0, 0]
    columns = (sheared * torch.arange(41)).sum(1) / sheared.sum(1)
    heights = 4 - torch.arange(9)
    expected = 20 + heights * math.tan(math.radians(angles(60, 1)[0]))
    torch.testing.assert_close(columns, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_slope_gets_gentler_by_the_factor_of_the_zoom(factor):
    column = torch.arange(9.0) - 4
    x = (column / 8).expand(1, 1, 9, 9)
    zoomed = distorted(Zoom(factor), x, (-1.0, 1.0))[0, 0, 4]
    inside = (column / factor).abs() <= 4
    torch.testing.assert_close(zoomed[inside], (column / factor / 8)[inside])
    assert (zoomed[(column / factor).abs() >= 5] == -1).all()


@pytest.mark.parametrize("condition", [Rotation(180), Shear(80), Zoom(0.3), Zoom(5)])
def test_the_centre_stays_where_it_is(condition):
    x = make(4, 3, 5, 7)
    torch.testing.assert_close(distorted(condition, x)[:, :, 2, 3], x[:, :, 2, 3])


@pytest.mark.parametrize("condition", [Rotation(0), Shear(0), Zoom(1)])
def test_a_deformation_by_nothing_changes_nothing(condition):
    x = make(2, 3, 6, 5)
    torch.testing.assert_close(distorted(condition, x), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("condition", [Rotation(50), Shear(50)])
def test_each_image_has_an_angle_of_its_own(condition):
    image = make(1, 1, 7, 7)
    first, second = distorted(condition, image.repeat(2, 1, 1, 1))
    assert not torch.allclose(first, second)
    assert torch.equal(first, distorted(condition, image)[0])


@pytest.mark.parametrize("condition", [Rotation(45), Shear(45), Zoom(0.5)])
def test_black_comes_in_from_outside(condition):
    corner = distorted(condition, torch.ones(1, 1, 21, 21, dtype=torch.float64))[0, 0, 0, 0]
    assert corner.item() == pytest.approx(LOW)


@pytest.mark.parametrize("severity", range(1, 6))
def test_a_blur_is_that_of_scipy(severity):
    x = make(2, 3, 9, 11)
    sigma = [0.4, 0.6, 0.7, 0.8, 1.0][severity - 1]
    blurred = ndimage.gaussian_filter(x.numpy(), (0, 0, sigma, sigma), mode="mirror")
    y = distorted(Corruption("gaussian_blur", severity), x)
    np.testing.assert_allclose(y, blurred, atol=1e-6)


@pytest.mark.parametrize("severity", range(1, 6))
def test_brightness_is_added_to_the_value_of_hsv(severity):
    x = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[..., 0, 0] = 0
    y = distorted(Corruption("brightness", severity), x, (0.0, 1.0))
    for before, after in zip(x[0].flatten(1).T, y[0].flatten(1).T, strict=True):
        h, s, v = colorsys.rgb_to_hsv(*before.tolist())
        v = min(1, v + [0.05, 0.1, 0.15, 0.2, 0.3][severity - 1])
        np.testing.assert_allclose(after, colorsys.hsv_to_rgb(h, s, v), atol=1e-12)


@pytest.mark.parametrize("severity", range(1, 6))
def test_contrast_is_lost_towards_the_mean_of_each_channel(severity):
    x = make(2, 3, 4, 5)
    y = distorted(Corruption("contrast", severity), x)
    mean, left = x.mean((2, 3), keepdim=True), [0.75, 0.5, 0.4, 0.3, 0.15][severity - 1]
    torch.testing.assert_close(y, mean + left * (x - mean))


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("channels", [1, 3])
def test_a_compression_is_that_of_pillow(severity, channels):
    x = smooth(1, channels, 16, 24)
    file = io.BytesIO()
    pixels = np.uint8((255 * x[0]).round().permute(1, 2, 0))
    quality = [80, 65, 58, 50, 40][severity - 1]
    Image.fromarray(pixels.squeeze()).save(file, "JPEG", quality=quality)
    y = distorted(Corruption("jpeg", severity), x, (0.0, 1.0))[0].permute(1, 2, 0)
    np.testing.assert_allclose(255 * y.squeeze(), np.array(Image.open(file)), atol=1e-9)


@pytest.mark.parametrize(("severity", "sides"), [(1, (9, 19)), (3, (8, 17)), (5, (6, 13))])
def test_a_pixelated_image_has_fewer_pixels_and_the_same_mean(severity, sides):
    y = distorted(Corruption("pixelate", severity), make(1, 1, 10, 20))[0, 0]
    assert (len(y.unique(dim=0)), len(y.unique(dim=1).T)) == sides
    flat = torch.full((1, 1, 10, 20), 0.7)
    torch.testing.assert_close(distorted(Corruption("pixelate", severity), flat), flat)


@pytest.mark.parametrize("kind", KINDS)
def test_a_corruption_is_worse_when_more_severe(kind):
    x = smooth(3, 3, 32, 32)
    ladder = [distorted(Corruption(kind, severity), x, (0.0, 1.0)) for severity in range(1, 6)]
    errors = [float((y - x).square().mean()) for y in ladder]
    assert errors[0] > 0
    assert errors == sorted(errors)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "jpeg"])
@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (2, 5, 3, 2)])
def test_images_may_be_tiny_and_have_any_number_of_channels(kind, shape):
    assert distorted(Corruption(kind, 5), make(*shape)).shape == shape


def test_a_corruption_follows_the_bounds():
    x = smooth(2, 3, 16, 16)
    for kind in KINDS:
        unit = distorted(Corruption(kind, 3), x, (0.0, 1.0))
        y = distorted(Corruption(kind, 3), x * (HIGH - LOW) + LOW)
        torch.testing.assert_close(y, unit * (HIGH - LOW) + LOW, rtol=0, atol=3.1 / 255)


def test_jpeg_refuses_other_than_grey_and_colour():
    with pytest.raises(ValueError, match="expected images of 1 or 3 channels for jpeg, but got 2"):
        distorted(Corruption("jpeg", 1), make(1, 2, 8, 8))


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: Rotation(181), r"expected degrees in \[0, 180\], but got 181"),
        (lambda: Rotation(-1), r"expected degrees in \[0, 180\], but got -1"),
        (lambda: Shear(90), r"expected degrees in \[0, 90\), but got 90"),
        (lambda: Shear(math.nan), r"expected degrees in \[0, 90\), but got nan"),
        (lambda: Zoom(0), "expected a finite factor > 0, but got 0"),
        (lambda: Zoom(math.inf), "expected a finite factor > 0, but got inf"),
        (lambda: Corruption("fog", 1), "expected kind in .'gaussian_blur', .*, but got 'fog'"),
        (lambda: Corruption("jpeg", 6), "expected a severity from 1 to 5, but got 6"),
        (lambda: Corruption("jpeg", 2.5), "expected a whole number as severity, but got 2.5"),
    ],
)
def test_arguments_out_of_range_are_refused(make_it, message):
    with pytest.raises(ValueError, match=message):
        make_it()

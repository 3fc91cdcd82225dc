"""Pictures of kernels with planted zeros."""

import keras
import numpy as np
import pytest

from tests.tf_ssl.structures import group_reference as reference
from tf_ssl import pictures


def _conv(shape=(5, 5, 4, 6)):
    kernel = reference.kernel(shape)
    kernel[:2] = 0.0  # dead shapes: the two upper rows of every map
    kernel[..., 1, :] = 0.0  # a dead channel
    kernel[..., 2] = 0.0  # a dead filter
    return kernel


def test_filter_shapes():
    kernel = _conv()
    expected = (kernel != 0).any(axis=3)
    np.testing.assert_array_equal(pictures.filter_shapes(kernel), expected)
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(
        pictures.filter_shapes(kernel, threshold=2.0),
        np.linalg.norm(kernel, axis=3) > 2.0,
    )


def test_filter_shapes_of_banks_and_depthwise():
    kernel = reference.kernel((3, 3, 2, 6))
    kernel[0, 0, 1, 3:] = 0.0  # the second channel of the second bank
    expected = np.ones([3, 3, 4], bool)
    expected[0, 0, 3] = False
    np.testing.assert_array_equal(
        pictures.filter_shapes(kernel, "conv", 2), expected
    )
    kernel = reference.kernel((3, 3, 4, 2))
    kernel[0, 0, 3] = 0.0
    np.testing.assert_array_equal(
        pictures.filter_shapes(kernel, "depthwise"), expected
    )


def test_shape_picture():
    zoom = 2
    picture = pictures.shape_picture(_conv(), zoom=zoom)
    # Four maps of 5 x 5, two beside each other, with borders of one pixel.
    assert picture.shape == (2 * 11 + 1, 2 * 11 + 1)
    assert picture.dtype == np.uint8
    shapes = pictures.filter_shapes(_conv())
    for channel in range(4):
        top, left = (channel // 2) * 11 + 1, (channel % 2) * 11 + 1
        cells = picture[top : top + 10, left : left + 10]
        np.testing.assert_array_equal(
            cells != 255,
            shapes[..., channel].repeat(zoom, 0).repeat(zoom, 1),
        )
    assert (picture[0] == picture[11]).all() and len(set(picture[0])) == 1
    assert picture.min() == 0  # the largest norm is black


@pytest.mark.parametrize(
    "shape, expected", [((4, 1, 2), (3, 6)), ((2, 3, 4, 1, 2), (8, 6))]
)
def test_shape_picture_of_other_ranks(shape, expected):
    picture = pictures.shape_picture(reference.kernel(shape), zoom=1)
    assert picture.shape == expected


def test_zero_map_has_white_strips():
    kernel = _conv()
    zeros = pictures.zero_map(kernel) == 255
    assert zeros.shape == (6, 100)
    np.testing.assert_array_equal(zeros, kernel.reshape(100, 6).T == 0)
    assert zeros[2].all()  # a row: the dead filter
    assert zeros[:, :40].all()  # columns: the dead shapes
    shade = pictures.zero_map(np.array([[0.0, 1e-30, -2.0]]))[:, 0]
    assert shade.tolist() == [255, 128, 0]  # small is not white


def test_zero_map_of_a_large_matrix():
    kernel = np.zeros([2500, 3], np.float32)
    kernel[1999, 1] = 1.0
    picture = pictures.zero_map(kernel, max_size=1000)
    assert picture.shape == (3, 834)
    assert np.argwhere(picture != 255).tolist() == [[1, 1999 // 3]]


def test_zero_map_threshold_and_nan():
    kernel = np.array([[0.1, -0.5, np.nan, np.inf]])
    picture = pictures.zero_map(kernel, threshold=0.2)
    assert (picture[:, 0] == 255).tolist() == [True, False, False, False]


@pytest.mark.parametrize("kind, shape, conv_groups", reference.KERNELS)
def test_lowered_has_the_rows_and_columns_of_the_groups(
    kind, shape, conv_groups
):
    kernel = reference.kernel(shape)
    matrix = pictures.lowered(kernel, kind, conv_groups)
    norms, _, _ = reference.norms(kernel, "row", kind, conv_groups)
    rows = np.square(matrix).sum(axis=1)
    gates = reference.GATES.get(kind, 1)
    rows = rows.reshape(gates, -1).sum(axis=0)
    np.testing.assert_allclose(
        np.sort(np.sqrt(rows)), sorted(norms.values()), rtol=1e-6
    )
    norms, _, _ = reference.norms(kernel, "column", kind, conv_groups)
    banks = shape[-2] if kind == "depthwise" else conv_groups
    columns = np.square(matrix).reshape(banks, -1, matrix.shape[1]).sum(axis=1)
    np.testing.assert_allclose(
        np.sort(np.sqrt(columns), axis=None), sorted(norms.values()), rtol=1e-6
    )


def _model():
    return keras.Sequential(
        [
            keras.Input([8, 8, 2]),
            keras.layers.Conv2D(3, 3, name="conv"),
            keras.layers.Conv2D(3, 1, name="point"),
            keras.layers.Flatten(),
            keras.layers.Dense(2, kernel_initializer="zeros", name="fc"),
        ]
    )


def test_figure(tmp_path):
    pytest.importorskip("matplotlib")
    drawing = pictures.figure(_model())
    titles = [axes.get_title() for axes in drawing.axes if axes.get_title()]
    assert titles == [
        "conv/kernel\nzero: 0% elements, 0% columns, 0% rows",
        "filter shapes",
        "point/kernel\nzero: 0% elements, 0% columns, 0% rows",
        "fc/kernel\nzero: 100% elements, 100% columns, 100% rows",
    ]
    drawing.savefig(tmp_path / "zeros.png")
    assert (tmp_path / "zeros.png").stat().st_size > 1000


def test_figure_of_nothing():
    with pytest.raises(ValueError) as error:
        pictures.figure(_model(), patterns=["bn/*"])
    assert str(error.value) == (
        "Invalid value for argument patterns. Expected patterns that match the "
        "path or the layer of a kernel, one of ['conv/kernel', 'point/kernel', "
        "'fc/kernel']. Received: patterns=['bn/*']"
    )


def test_dense_kernels_have_no_shapes():
    with pytest.raises(ValueError) as error:
        pictures.filter_shapes(np.ones([3, 4]))
    assert str(error.value) == (
        "Invalid value for argument kernel. Expected a kernel with spatial "
        "axes. Received: a kernel of shape (3, 4)"
    )


@pytest.mark.parametrize(
    "function, name",
    [(pictures.shape_picture, "zoom"), (pictures.zero_map, "max_size")],
)
def test_sizes(function, name):
    with pytest.raises(ValueError) as error:
        function(np.ones([3, 3, 1, 1]), **{name: 0})
    assert str(error.value) == (
        f"Invalid value for argument {name}. Expected an integer >= 1. "
        f"Received: {name}=0"
    )

"""Groups against groups found weight by weight."""

import numpy as np
import pytest

from tests.tf_ssl.structures import group_reference as reference
from tf_ssl.structures import groups

CASES = [
    (spec, *kernel)
    for kernel in reference.KERNELS
    for spec in groups.GROUPS
    if spec != "kernel2d" or kernel[0] in reference.SPATIAL
]
CASES += [
    (("axis", (0,)), "dense", (3, 4), 1),
    (("axis", (-1, 0)), "conv", (3, 2, 4, 6), 1),
    (("axis", (2, 3)), "conv", (3, 2, 4, 6), 2),  # never across banks
    (("axis", (0, 1)), "conv", (3, 2, 4, 6), 2),
    (("axis", (1,)), "lstm", (3, 8), 1),
    (("block", (2, 3)), "dense", (3, 4), 1),
    (("block", (3, 4)), "conv", (3, 2, 4, 6), 1),
    (("block", (6, 8)), "conv", (3, 2, 4, 6), 1),
    (("block", (3, 4)), "conv", (3, 2, 4, 6), 2),
    (("block", (2, 3)), "transposed", (3, 2, 4, 6), 1),
    (("block", (4, 9)), "transposed", (3, 2, 4, 6), 1),
    (("block", (2, 3)), "depthwise", (3, 2, 4, 2), 1),
    (("block", (2, 3)), "lstm", (3, 8), 1),
    (("block", (1, 3)), "gru", (3, 6), 1),
]


@pytest.mark.parametrize("spec, kind, shape, conv_groups", CASES)
def test_groups(spec, kind, shape, conv_groups):
    kernel = reference.kernel(shape)
    expected, spread, sizes = reference.norms(kernel, spec, kind, conv_groups)

    part = groups.partition(spec, shape, kind, conv_groups)
    norms = part.norms(kernel)

    assert part.num_groups == norms.size == len(expected)
    assert {part.group_size} == set(sizes.values())
    np.testing.assert_allclose(
        np.sort(norms, axis=None), sorted(expected.values()), rtol=1e-12
    )
    # The right weights are in each group.
    np.testing.assert_allclose(part.spread(norms), spread, rtol=1e-12)


def test_the_table_of_the_paper():
    shape = (5, 5, 20, 50)
    counts = {
        "filter": 50,
        "channel": 20,
        "shape": 500,
        "kernel2d": 1000,
        "layer": 1,
    }
    for spec, count in counts.items():
        assert groups.partition(spec, shape).num_groups == count


def test_auto_is_dense_or_conv():
    assert groups.resolve("auto", (3, 4)) == "dense"
    for shape in [(3, 3, 4), (3, 3, 3, 4), (3, 3, 3, 3, 4)]:
        assert groups.resolve("auto", shape) == "conv"


@pytest.mark.parametrize("axis", [(4,), (-5,), (0, 0), (3, -1)])
def test_axis_must_be_of_the_kernel(axis):
    with pytest.raises(ValueError) as error:
        groups.partition(("axis", axis), (3, 3, 2, 4))
    assert str(error.value) == (
        "Invalid value for argument axis. Expected different axes of a kernel "
        f"of shape (3, 3, 2, 4). Received: axis={axis}"
    )


@pytest.mark.parametrize("block", [(5, 1), (1, 7), (50, 500)])
def test_block_must_divide(block):
    with pytest.raises(ValueError) as error:
        groups.partition(("block", block), (5, 5, 1, 6))
    assert str(error.value) == (
        "Invalid value for argument block. Expected (h, w) that divide the 6 "
        "filters and 25 columns of the lowered matrix of a conv kernel of "
        f"shape (5, 5, 1, 6). Received: block={block}"
    )


def test_block_must_divide_the_filters_of_a_bank():
    groups.partition(("block", (4, 1)), (3, 3, 2, 8), "conv", 2)
    with pytest.raises(ValueError, match="divide the 4 filters"):
        groups.partition(("block", (8, 1)), (3, 3, 2, 8), "conv", 2)


def test_dense_kernels_have_no_2d_kernels():
    with pytest.raises(ValueError) as error:
        groups.partition("kernel2d", (784, 300))
    assert str(error.value) == (
        "Invalid value for argument groups. Expected one of {'filter', "
        "'channel', 'shape', 'layer', 'row', 'column'} for a dense kernel of "
        "shape (784, 300), which has no spatial axes. "
        "Received: groups='kernel2d'"
    )


@pytest.mark.parametrize(
    "kind, shape, expected",
    [
        ("auto", (7,), "2 to 5"),
        ("auto", (1, 2, 3, 4, 5, 6), "2 to 5"),
        ("dense", (3, 3, 4), "2"),
        ("lstm", (8,), "2"),
        ("conv", (3, 4), "3 to 5"),
        ("depthwise", (3, 4), "3 to 5"),
    ],
)
def test_rank(kind, shape, expected):
    with pytest.raises(ValueError) as error:
        groups.resolve(kind, shape)
    assert str(error.value) == (
        "Invalid value for argument kind. Expected a kernel of rank "
        f"{expected} for kind={kind!r}. Received: a kernel of shape {shape}"
    )


def test_gates():
    with pytest.raises(ValueError) as error:
        groups.resolve("gru", (3, 8))
    assert str(error.value) == (
        "Invalid value for argument kind. Expected a last axis of 3 gates for "
        "kind='gru'. Received: a kernel of shape (3, 8)"
    )


def test_banks_are_of_convolutions():
    with pytest.raises(ValueError) as error:
        groups.resolve("auto", (3, 8), 2)
    assert str(error.value) == (
        "Invalid value for argument conv_groups. Expected 1 for a dense "
        "kernel. Received: conv_groups=2"
    )


def test_banks_divide_the_filters():
    with pytest.raises(ValueError) as error:
        groups.resolve("conv", (3, 3, 2, 8), 3)
    assert str(error.value) == (
        "Invalid value for argument conv_groups. Expected a divisor of the 8 "
        "filters of a kernel of shape (3, 3, 2, 8). Received: conv_groups=3"
    )

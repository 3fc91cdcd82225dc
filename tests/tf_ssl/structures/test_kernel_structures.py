"""Tests of tf_ssl/structures/kernel_structures.py."""

import keras
import numpy as np
import pytest

from tf_ssl.penalties.group_lasso import GroupLasso
from tf_ssl.structures.kernel_structures import kernel_structures

layers = keras.layers


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 4)),
            layers.Conv2D(8, 3, groups=2, name="banks"),
            layers.Conv2DTranspose(4, 2, name="transposed"),
            layers.Reshape((25, 4)),
            layers.LSTM(4, name="lstm"),
            layers.Dense(6, name="dense"),
        ]
    )


@pytest.mark.parametrize(
    ("pattern", "spec", "kind", "conv_groups"),
    [
        ("banks", "filter", "conv", 2),
        ("banks", "shape", "conv", 2),
        ("banks", "kernel2d", "conv", 2),
        ("banks", ("block", (2, 9)), "conv", 2),
        ("banks", ("axis", (0, 1, 3)), "conv", 2),
        ("transposed", "channel", "transposed", 1),
        ("transposed", ("block", (4, 2)), "transposed", 1),
        ("lstm_cell/kernel", ("block", (2, 2)), "lstm", 1),
        ("lstm_cell/recurrent_kernel", "filter", "lstm", 1),
        ("dense", "layer", "dense", 1),
        ("dense", ("block", (3, 2)), "dense", 1),
    ],
)
def test_units_are_the_groups_of_the_regularizer(
    pattern, spec, kind, conv_groups
):
    model = network()
    (structure,) = kernel_structures(model, {pattern: spec})
    (part,) = structure.slices
    lasso = GroupLasso(1.0, (spec,), kind=kind, conv_groups=conv_groups)
    (groups,) = lasso.partitions(part.variable.shape)
    expected = groups.norms(part.variable.numpy())
    np.testing.assert_allclose(structure.norms(), expected.ravel(), rtol=1e-6)
    assert structure.size == groups.num_groups
    np.testing.assert_allclose(
        float(lasso(part.variable)), structure.norms().sum(), rtol=1e-5
    )
    structure.zero([0])
    assert (part.variable.numpy() == 0).sum() == groups.group_size


def test_names_and_the_last_pattern():
    found = kernel_structures(
        network(),
        {
            "*": "filter",
            "lstm*": None,
            "banks": ("block", (4, 2)),
            "dense": ("axis", 0),
        },
    )
    assert [(s.name, s.kind) for s in found] == [
        ("banks/kernel/block4x2", "groups"),
        ("transposed/kernel/filter", "groups"),
        ("dense/kernel/axis0", "groups"),
    ]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (
            {"conv9": "filter"},
            "Invalid value for argument patterns. Expected patterns that match "
            "the path or the layer of a kernel, one of ['banks/kernel', "
            "'dense/kernel', 'lstm/lstm_cell/kernel', "
            "'lstm/lstm_cell/recurrent_kernel', 'transposed/kernel']. "
            "Received: 'conv9'",
        ),
        (
            {"dense": ("filter", "channel")},
            "Invalid value for argument patterns. Expected one kind of groups "
            "for dense/kernel. Received: ('filter', 'channel')",
        ),
        (
            {"dense": ("block", (4, 2))},
            "dense/kernel: Invalid value for argument block. Expected (h, w) "
            "that divide the 6 filters and 4 columns of the lowered matrix of "
            "a dense kernel of shape (4, 6). Received: block=(4, 2)",
        ),
    ],
)
def test_bad_patterns(patterns, message):
    with pytest.raises(ValueError) as error:
        kernel_structures(network(), patterns)
    assert str(error.value) == message

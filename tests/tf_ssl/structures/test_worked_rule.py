"""The rule in docs/architecture.md, run."""

import pathlib
import re

import keras
import numpy as np

import tf_ssl

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "architecture.md"


def test_ten_lines_follow_cut_and_fold():
    (block,) = re.findall(
        r"```python\n(class Gate.*?)```", PAGE.read_text(), re.S
    )
    names = {"keras": keras, "tf_ssl": tf_ssl}
    exec(compile(block, str(PAGE), "exec"), names)
    inputs = keras.Input((5, 4))
    x = keras.layers.Dense(6, bias_initializer="ones", name="a")(inputs)
    gate = names["Gate"](name="gate")
    model = keras.Model(inputs, keras.layers.Dense(2)(gate(x)))
    structures = tf_ssl.find_structures(model)
    assert {s.name: s.size for s in structures if s.kind != "input"} == {
        "a/units": 6,
        "gate/units": 8,
    }
    (scale,) = structures["gate/units"].of(["norm"])
    assert scale.variable is gate.s
    scale.zero([1, 2, 5])
    structures["a/units"].zero([0])
    np.testing.assert_array_equal(
        np.flatnonzero(structures["gate/units"].dead()), [1, 2, 5]
    )
    np.testing.assert_array_equal(
        np.flatnonzero(structures["a/units"].dead()), [0]
    )


def test_the_same_layer_without_a_rule_opens():
    class Gate(keras.layers.Layer):
        def build(self, shape):
            self.w = self.add_weight((shape[-1], 8), name="w")
            self.s = self.add_weight((8,), "ones", name="s")

        def call(self, x):
            return keras.ops.matmul(x, self.w) * self.s

    inputs = keras.Input((5, 4))
    x = keras.layers.Dense(6, name="a")(inputs)
    x = Gate(name="gate")(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    structures = tf_ssl.find_structures(model)
    assert {s.name: s.size for s in structures if s.kind != "input"} == {
        "a/units": 6,
        "gate/w/units": 8,
    }
    structures["gate/w/units"].zero([1, 2, 5])
    structures["a/units"].zero([0])
    small = tf_ssl.shrink(model)
    assert small.shrink_report.units["gate/w/units"] == (8, 5)
    assert small.get_layer("a").units == 5
    # A branch that is for training only is named when it must be cut.
    assert small.shrink_report.training_lost == []

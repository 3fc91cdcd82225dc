"""Tests of copies of layers, tf_ssl/graph/live_copy.py and copier.py."""

import collections
import gc
import re
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tf_ssl.graph import layer_cases
from tests.tf_ssl.graph.layer_cases import CASES, Composite, L, noise
from tf_ssl.graph.copying.live_copy import copy_layer, copy_value


def call(layer, inputs, training=False):
    """Outputs as arrays."""
    inputs = inputs if isinstance(inputs, list) else [inputs]
    inputs = [
        tf.constant(x)
        if x.dtype.kind in "US"
        else keras.ops.convert_to_tensor(x)
        for x in inputs
    ]
    kwargs = {"training": training} if layer._call_has_training_arg else {}
    return [
        x.numpy().astype(np.float32) if x.dtype == tf.bfloat16 else x.numpy()
        for x in keras.tree.flatten(layer(*inputs, **kwargs))
    ]


def equal(expected, actual):
    for a, b in zip(expected, actual, strict=True):
        np.testing.assert_array_equal(a, b)


def values(layer):
    states = keras.tree.flatten(getattr(layer, "states", None) or [])
    return [v.numpy() for v in [*layer.variables, *states]]


def model_of(layer, inputs):
    """A model of one layer, with a Dense layer before it if that can train."""
    arrays = inputs if isinstance(inputs, list) else [inputs]
    tensors = [
        keras.Input(
            batch_shape=x.shape,
            dtype="string" if x.dtype.kind in "US" else str(x.dtype),
        )
        for x in arrays
    ]
    return keras.Model(tensors, layer(*tensors))


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "_"))
def case(request):
    make, inputs, is_saved = CASES[request.param]
    layer = make()
    call(layer, inputs)
    return layer, inputs, is_saved


def test_same_outputs_with_other_variables(case):
    layer, inputs, _ = case
    before = values(layer)
    other = copy_layer(layer)
    assert type(other) is type(layer)
    assert not other._inbound_nodes and not other._outbound_nodes
    assert (other.name, other.path) == (layer.name, layer.path)
    equal(before, values(layer))
    equal(before, values(other))
    for a, b in zip(layer.variables, other.variables, strict=True):
        assert a is not b and a._value is not b._value
        for name in ("path", "name", "dtype", "trainable", "shape"):
            assert getattr(a, name) == getattr(b, name)
        assert a._autocast == b._autocast
        assert (a.regularizer is None) == (b.regularizer is None)
        assert (a.constraint is None) == (b.constraint is None)
    of_layer = layer._flatten_layers()
    for a, b in zip(of_layer, other._flatten_layers(), strict=True):
        assert a is not b and a.trainable == b.trainable
        assert a.dtype_policy == b.dtype_policy
    assert [v.path for v in layer.trainable_variables] == [
        v.path for v in other.trainable_variables
    ]
    for training in (False, True):
        equal(call(layer, inputs, training), call(other, inputs, training))


def test_training_the_copy_leaves_the_layer(case):
    layer, inputs, _ = case
    other = copy_layer(layer)
    model = model_of(other, inputs)
    tensors = inputs if isinstance(inputs, list) else [inputs]
    before, learned = values(layer), values(other)
    if other.trainable_variables:
        model.compile(keras.optimizers.SGD(0.1), loss="mse")
        # Keras cannot train float8 eagerly.
        model.run_eagerly = "float8" not in other.dtype_policy.name
        outputs = [np.ones_like(x) for x in call(other, inputs)]
        model.train_on_batch(tensors, outputs)
        assert any(
            (a != b).any() for a, b in zip(learned, values(other), strict=True)
        )
    else:
        call(other, inputs, training=True)
    equal(before, values(layer))


def test_saved_and_loaded(case, tmp_path):
    layer, inputs, is_saved = case
    if not is_saved:
        pytest.skip("the original cannot be saved either")
    arrays = inputs if isinstance(inputs, list) else [inputs]
    arrays = [tf.constant(x) for x in arrays]
    arrays = arrays if len(arrays) > 1 else arrays[0]
    model = model_of(copy_layer(layer), inputs)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    for part in [*model.layers, *again.layers]:
        if getattr(part, "stateful", False):  # states are not in files
            part.reset_states()
    a, b = (
        [np.asarray(x) for x in keras.tree.flatten(m(arrays, training=False))]
        for m in (model, again)
    )
    equal(a, b)


@pytest.mark.parametrize(
    "name", ["dense", "composite", "models", "both ways", "adapted", "strings"]
)
def test_exported(name, tmp_path):
    make, inputs, _ = CASES[name]
    layer = make()
    expected = call(layer, inputs)
    model = model_of(copy_layer(layer), inputs)
    model.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(
        loaded.serve([tf.constant(inputs)]), expected[0], rtol=1e-5, atol=1e-6
    )
    if name != "strings":
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        assert converter.convert()


def test_shared_parts_stay_shared():
    layer = Composite()
    layer(noise(2, 4))
    other = copy_layer(layer)
    assert other.first is other.again
    assert other.alias is other.offset
    assert other.helper.layer is other.listed[1] is not layer.listed[1]
    assert other.mean.variables[0] is not layer.mean.variables[0]
    assert len(other.variables) == len(layer.variables)


def test_a_memo_keeps_sharing_across_calls():
    shared = L.Dense(4)
    one, two = keras.Sequential([shared]), keras.Sequential([shared])
    one(noise(2, 4)), two(noise(2, 4))
    memo = {}
    a, b = copy_layer(one, memo), copy_layer(two, memo)
    assert a.layers[0] is b.layers[0] is memo[id(shared)]
    assert memo[id(shared.kernel)] is a.layers[0].kernel
    assert copy_layer(one, memo) is a


def test_what_a_memo_holds_is_taken():
    layer = Composite()
    layer(noise(2, 4))
    successor = L.Dense(4)
    other = copy_layer(layer, {id(layer.first): successor})
    assert other.first is other.again is successor


def test_a_function_that_reaches_a_layer_reaches_its_copy():
    dense = L.Dense(4)
    dense.build((None, 4))
    layer = L.Lambda(
        lambda x, d=dense: d(x) @ keras.ops.transpose(dense.kernel)
    )
    memo = {}
    other, copied = copy_layer(layer, memo), copy_layer(dense, memo)
    copied.kernel.assign(np.eye(4))
    np.testing.assert_array_equal(other(noise(2, 4)), noise(2, 4))
    assert (layer(noise(2, 4)) != noise(2, 4)).numpy().any()


def test_a_tf_function_of_the_layer_is_one_of_the_copy():
    class Traced(L.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(), initializer="ones")
            self.traced = tf.function(self.scaled)

        def scaled(self, x):
            return x * self.scale

        def call(self, x):
            return self.traced(x)

    layer = Traced()
    layer(noise(2, 4))
    other = copy_layer(layer)
    other.scale.assign(3.0)
    np.testing.assert_array_equal(other(noise(2, 4)), 3 * noise(2, 4))
    np.testing.assert_array_equal(layer(noise(2, 4)), noise(2, 4))


def test_a_tensorflow_variable_and_module():
    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable(2.0, name="w")

    class Holder(L.Layer):
        def __init__(self):
            super().__init__()
            self.b = tf.Variable([1.0], trainable=False, name="b")
            self.module = Module()

        def call(self, x):
            return x * self.module.w + self.b

    layer = Holder()
    other = copy_layer(layer)
    np.testing.assert_array_equal(other(noise(2, 4)), layer(noise(2, 4)))
    other.module.w.assign(0.0)
    other.b.assign([0.0])
    assert layer.module.w.numpy() == 2 and layer.b.numpy() == 1
    assert (other.b.name, other.b.trainable) == ("b:0", False)


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_a_copy_can_be_quantized(mode):
    layer = L.Dense(8)
    layer(noise(2, 4))
    other = copy_layer(layer)
    other.quantize(mode)
    assert layer.quantization_mode is None
    before = [v.path for v in layer.variables]
    layer.quantize(mode)
    assert before != [v.path for v in layer.variables]
    assert [v.path for v in other.variables] == [
        v.path for v in layer.variables
    ]
    equal(call(layer, noise(2, 4)), call(other, noise(2, 4)))


def test_a_copy_can_get_lora():
    layer = L.Dense(8)
    layer(noise(2, 4))
    other = copy_layer(layer)
    other.enable_lora(2)
    assert [v.name for v in other.trainable_variables] == [
        "bias",
        "lora_kernel_a",
        "lora_kernel_b",
    ]
    assert [v.name for v in layer.trainable_variables] == ["kernel", "bias"]


def test_parts_of_a_copy_can_be_replaced():
    model = keras.Sequential([keras.Input((4,)), L.Dense(3), L.Dense(2)])
    other = copy_layer(model)
    other.pop()
    other.add(L.Dense(5))
    assert other(noise(2, 4)).shape == (2, 5)
    assert model(noise(2, 4)).shape == (2, 2)


def test_a_tensorflow_generator():
    class Noise(L.Layer):
        def __init__(self):
            super().__init__()
            self.generator = tf.random.Generator.from_seed(3)

        def call(self, x):
            return x + self.generator.normal(tf.shape(x))

    layer = Noise()
    layer(noise(2, 4))
    other = copy_layer(layer)
    drawn = [other(noise(2, 4)).numpy() for _ in range(2)]
    assert (drawn[0] != drawn[1]).any()
    np.testing.assert_array_equal(layer(noise(2, 4)), drawn[0])


def test_types_by_path_are_those_of_the_copy():
    policies = keras.dtype_policies.DTypePolicyMap()
    policies["(.*/)?one"] = keras.DTypePolicy("mixed_bfloat16")
    model = keras.Sequential(
        [
            keras.Input((4,)),
            L.Dense(3, dtype=policies, name="one"),
            L.Dense(3, dtype=policies, name="two"),
        ]
    )
    one, two = copy_layer(model).layers
    assert one.dtype_policy is two.dtype_policy is not policies
    assert (one.compute_dtype, two.compute_dtype) == ("bfloat16", "float32")
    two.dtype_policy = "float16"
    assert model.layers[1].compute_dtype == "float32"


def test_under_a_distribution_strategy():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = keras.Sequential(
            [keras.Input((4,)), L.Dense(3), L.BatchNormalization()]
        )
        model.compile("sgd", "mse")
    other = copy_layer(model)
    with strategy.scope():
        other.compile("sgd", "mse")
    assert other.distribute_strategy is strategy
    kernels = [m.layers[0].kernel._value for m in (model, other)]
    assert type(kernels[0]) is type(kernels[1])
    before = values(model)
    other.fit(noise(4, 4), noise(4, 3), verbose=0)
    equal(before, values(model))


def test_a_functional_model_keeps_its_graph(tmp_path):
    x = keras.Input((4,), name="x")
    shared = L.Dense(4, name="shared")
    bias = keras.Variable(np.ones(4, np.float32), name="bias")
    y = keras.ops.concatenate([shared(x), shared(x * 2.0) + bias], axis=-1)
    model = keras.Model({"x": x}, {"y": y, "again": shared.output})
    memo = {}
    other = copy_layer(model, memo)
    assert other.get_config()["layers"][0] == model.get_config()["layers"][0]
    assert [o.name for o in other.operations] == [
        o.name for o in model.operations
    ]
    assert len(shared._inbound_nodes) == 2
    expected = model({"x": noise(2, 4)})
    actual = other({"x": noise(2, 4)})
    for name in ("y", "again"):
        np.testing.assert_array_equal(expected[name], actual[name])
    memo[id(bias)].assign(np.zeros(4))
    assert (other({"x": noise(2, 4)})["y"] != expected["y"]).numpy().any()
    np.testing.assert_array_equal(model({"x": noise(2, 4)})["y"], expected["y"])


def test_a_deep_model_needs_no_deep_stack():
    model = keras.Sequential([keras.Input((2,))])
    for _ in range(400):
        model.add(L.Activation("tanh"))
    other = copy_layer(model)
    np.testing.assert_array_equal(other(noise(1, 2)), model(noise(1, 2)))


def test_masks_pass_through_a_copied_model():
    model = keras.Sequential(
        [keras.Input((3,)), L.Embedding(5, 4, mask_zero=True), L.LSTM(2)]
    )
    x = np.array([[1, 2, 0], [3, 0, 0]])
    other = copy_layer(model)
    np.testing.assert_array_equal(other(x), model(x))
    assert (other(x) != other(np.maximum(x, 4))).numpy().any()


def test_a_copy_does_not_hold_the_model():
    x = keras.Input((3,))
    y = L.LSTM(2, return_sequences=True)(L.Embedding(5, 4, mask_zero=True)(x))
    model = keras.Model(x, y)
    other = copy_layer(model)
    gone = weakref.ref(model.layers[1])
    del model, x, y
    gc.collect()
    assert gone() is None
    assert other(np.array([[1, 2, 0]])).shape == (1, 3, 2)


def test_a_compiled_model_s_copy_is_not_compiled():
    model = keras.Sequential([keras.Input((4,)), L.Dense(2)])
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(noise(4, 4), noise(4, 2), verbose=0)
    other = copy_layer(model)
    assert not other.compiled and other.train_function is None
    assert not hasattr(other, "optimizer")
    other.compile("sgd", "mse")
    before = values(model)
    other.fit(noise(4, 4), noise(4, 2), verbose=0)
    equal(before, values(model))
    assert model.compiled and model.optimizer.iterations.numpy() == 1


def test_an_unbuilt_layer():
    layer = L.Dense(3)
    other = copy_layer(layer)
    other(noise(2, 4))
    assert other.built and not layer.built and not layer.variables
    with pytest.raises(ValueError, match="already built"):
        other.late = L.Dense(2)


def test_an_operation():
    x = keras.Input((4,))
    operation = (x + 1.0)._keras_history.operation
    other = copy_layer(operation)
    assert other is not operation and not other._inbound_nodes
    np.testing.assert_array_equal(other(noise(2, 4), 1.0), noise(2, 4) + 1)


def test_collections_stay_what_they_are():
    Pair = collections.namedtuple("Pair", "first second")
    variable = keras.Variable([1.0], name="v")
    counts = collections.defaultdict(list, {"v": [variable]})
    values = {
        "counts": counts,
        "ordered": collections.OrderedDict(b=variable, a=1),
        "pair": Pair(variable, {3}),
        "fixed": frozenset([4]),
    }
    other = copy_value(values)
    assert other["counts"]["new"] == [] and type(other["ordered"]) is (
        collections.OrderedDict
    )
    assert list(other["ordered"]) == ["b", "a"] and other["fixed"] == {4}
    copied = other["pair"].first
    assert copied is other["counts"]["v"][0] is other["ordered"]["b"]
    assert copied is not variable and "new" not in counts


def test_values_in_lists_and_objects():
    variable = keras.Variable([1.0], name="v")
    helper = layer_cases.Helper({"v": (variable, [variable])})
    other = copy_value(helper)
    assert other.layer["v"][0] is other.layer["v"][1][0] is not variable


def test_no_layer():
    message = (
        "Invalid type for argument layer. Expected a keras.Layer or "
        "keras.Operation. Received: layer=3 of type int"
    )
    with pytest.raises(TypeError, match=re.escape(message)):
        copy_layer(3)

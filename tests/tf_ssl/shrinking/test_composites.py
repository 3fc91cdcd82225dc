"""Layers of layers, and subclassed models, made smaller."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tf_ssl
from tf_ssl.graph.rewriting import Rewriter
from tf_ssl.graph.walk import build_graph
from tf_ssl.structures.rules import has_rule

FLAT = np.random.default_rng(1).normal(size=(3, 4)).astype("float32")
STEPS = np.random.default_rng(2).normal(size=(3, 5, 4)).astype("float32")


def randomize(model):
    random = np.random.default_rng(3)
    for variable in model.weights:
        if "float" in str(variable.dtype):
            variable.assign(0.5 * random.normal(size=variable.shape))
    return model


def chain(*made, x=FLAT, shape=None):
    """A Functional model of a Dense of 6, layers, and a Dense of 3."""
    outputs = inputs = keras.Input(shape or x.shape[1:], dtype=x.dtype.name)
    outputs = layers.Dense(6, name="first")(outputs)
    for layer in made:
        outputs = layer(outputs)
    model = keras.Model(inputs, layers.Dense(3, name="last")(outputs))
    return randomize(model)


def arrays(outputs):
    flat = [x for x in keras.tree.flatten(outputs) if x is not None]
    return [ops.convert_to_numpy(ops.cast(x, "float64")) for x in flat]


def assert_same(expected, actual, tolerance=1e-5):
    expected, actual = arrays(expected), arrays(actual)
    assert [a.shape for a in actual] == [a.shape for a in expected]
    for a, b in zip(expected, actual, strict=True):
        scale = np.abs(a).max() or 1.0
        np.testing.assert_allclose(b / scale, a / scale, atol=tolerance)


def shrunk(model, x, length=None, opened=(), closed=(), tolerance=1e-5):
    """The smaller model after two units of each structure became zero."""
    graph = build_graph(model, has_rule, length)
    assert {name for name, _ in graph.closed} == set(closed)
    assert_same(
        model(x, training=False),
        Rewriter(graph).model()(x, training=False),
        tolerance,
    )
    units = {}
    for structure in tf_ssl.find_structures(model, length=length):
        is_input = structure.name.endswith("/input")
        if len(structure.norms()) > 2 and not is_input:
            structure.zero([0, 2])
            units[structure.name] = len(structure.norms()) - 2
    expected = model(x, training=False)
    small = tf_ssl.shrink(model, sample=x, length=length)
    report = small.shrink_report
    assert set(opened) <= set(report.opened)
    assert {k: report.units[k][1] for k in units} == units
    assert_same(expected, small(x, training=False), tolerance)
    # Another number of examples.
    more = keras.tree.map_structure(lambda a: np.concatenate([a, a]), x)
    twice = keras.tree.map_structure(
        lambda t: ops.concatenate([t, t]), model(x, training=False)
    )
    assert_same(twice, small(more, training=False), tolerance)
    ours = {id(v) for v in model.variables}
    assert ours.isdisjoint(id(v) for v in small.variables)
    return small


class Inner(layers.Layer):
    """Two Dense layers."""

    def __init__(self, units=6, outputs=6, **kwargs):
        super().__init__(**kwargs)
        self.a = layers.Dense(units, activation="relu", name="a")
        self.b = layers.Dense(outputs, name="b")

    def build(self, shape):
        self.a.build(shape)
        self.b.build((*shape[:-1], self.a.units))
        self.built = True

    def call(self, x):
        return self.b(self.a(x))

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.b.units)


class Outer(layers.Layer):
    """Composite layers in a list and in a dict."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [Inner(name="i0"), Inner(name="i1")]
        self.named = {"z": Inner(name="i2")}

    def call(self, x):
        for block in self.blocks:
            x = x + block(x)
        return self.named["z"](x)


def units_of(small):
    return {k: after for k, (_, after) in small.shrink_report.units.items()}


def test_nested_twice_in_lists_and_dicts():
    small = shrunk(chain(Outer(name="o")), FLAT, opened=("o", "i0", "i1", "i2"))
    found = units_of(small)
    assert [found[f"o/i{i}/a/units"] for i in range(3)] == [4, 4, 4]
    assert [layer.name for layer in small.layers if "Dense" in str(layer)] == [
        "first",
        *(f"o_i{i}_{x}" for i in range(3) for x in "ab"),
        "last",
    ]


def test_called_twice_it_stays_shared():
    shared = Inner(name="s")
    small = shrunk(chain(shared, shared), FLAT, opened=("s",))
    assert units_of(small)["s/a/units"] == 4
    assert [layer.name for layer in small.layers].count("s_a") == 1
    assert len(small.get_layer("s_a")._inbound_nodes) == 2


def test_called_on_two_shapes():
    shared = Inner(name="s")
    inputs = [keras.Input((None, 4)), keras.Input((7, 4))]
    model = keras.Model(inputs, [layers.Dense(2)(shared(x)) for x in inputs])
    x = [STEPS, np.ones((3, 7, 4), "float32")]
    small = shrunk(randomize(model), x, opened=("s",))
    assert units_of(small)["s/a/units"] == 4


def test_in_a_nested_model():
    inputs = keras.Input((6,))
    nested = keras.Model(inputs, Inner(name="i")(inputs), name="nested")
    small = shrunk(chain(nested, nested), FLAT, opened=("i",))
    assert "i_a" in [x.name for x in small.get_layer("nested").layers]


@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_models_inside_stay_models(kind):
    class Holds(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            made = [
                layers.Dense(5, "relu", name="u"),
                layers.Dense(6, name="v"),
            ]
            if kind == "sequential":
                self.model = keras.Sequential(made, name="held")
            else:
                inputs = keras.Input((6,))
                outputs = made[1](made[0](inputs))
                self.model = keras.Model(inputs, outputs, name="held")

        def call(self, x):
            return x + self.model(x)

    small = shrunk(chain(Holds(name="h")), FLAT, opened=("h",))
    held = next(x for x in small.layers if x.name.endswith("held"))
    assert isinstance(held, keras.Sequential) == (kind == "sequential")
    assert held.get_layer("u").units == 3


class Holder(layers.Layer):
    """Variables of its own, in attributes and containers, and arrays."""

    def build(self, shape):
        self.scale = self.add_weight((6,), name="scale")
        self.kernels = [self.add_weight((6, 5), name="k0")]
        self.by_name = {"k": self.add_weight((5, 4), name="k1")}
        self.pair = (self.add_weight((4,), name="bias"),)
        self.array = np.linspace(1, 2, 4).astype("float32")
        self.tensor = ops.ones((4,))
        self.whole = self.add_weight(
            (), "ones", dtype="int32", trainable=False, name="n"
        )
        self.built = True

    def call(self, x):
        x = ops.relu(ops.matmul(x * self.scale, self.kernels[0]))
        x = ops.matmul(x, self.by_name["k"]) + self.pair[0]
        x = ops.cast(x, "float32") * self.array
        return x + self.tensor * ops.cast(self.whole, "float32")


def test_own_variables_and_arrays():
    small = shrunk(chain(Holder(name="h")), FLAT, opened=("h",))
    held = {v.path: v.trainable for v in small.variables if "h_" in v.path}
    assert held == {
        "h_scale/scale": True,
        "h_k0/k0": True,
        "h_k1/k1": True,
        "h_bias/bias": True,
        "h_n/n": False,
    }
    assert small.get_layer("h_scale").shape == (4,)


@pytest.mark.parametrize(
    "policy, tolerance",
    [("mixed_float16", 5e-3), ("mixed_bfloat16", 4e-2), ("float64", 1e-10)],
)
def test_types(policy, tolerance):
    keras.config.set_dtype_policy(policy)
    try:
        model = chain(Holder(name="h"), Inner(name="i"))
        small = shrunk(model, FLAT, opened=("h", "i"), tolerance=tolerance)
    finally:
        keras.config.set_dtype_policy("float32")
    assert [small.get_layer(n).kernel.dtype for n in ("first", "last")] == [
        model.layers[1].kernel.dtype
    ] * 2
    assert small.outputs[0].dtype == model.outputs[0].dtype


def repeated(make):
    class Token(layers.Layer):
        def build(self, shape):
            self.token = self.add_weight((1, 1, 6), name="token")
            self.places = self.add_weight((9, 6), name="places")

        def call(self, x):
            size = ops.shape(x)[0]
            x = ops.concatenate([make(self.token, size), x], axis=1)
            return x + self.places[: ops.shape(x)[1]]

        def compute_output_shape(self, shape):
            steps = None if shape[1] is None else shape[1] + 1
            return (shape[0], steps, shape[2])

    return Token(name="t")


@pytest.mark.parametrize(
    "make",
    [
        lambda t, n: ops.tile(t, (n, 1, 1)),
        lambda t, n: ops.broadcast_to(t, (n, 1, 6)),
        lambda t, n: ops.repeat(t, n, axis=0),
        lambda t, n: t + ops.zeros((n, 1, 1)),
        lambda t, n: ops.zeros((n, 1, 6)),
    ],
    ids=["tile", "broadcast_to", "repeat", "zeros", "numbers"],
)
def test_class_token_and_places(make):
    small = shrunk(chain(repeated(make), x=STEPS), STEPS, opened=("t",))
    assert units_of(small)["first/units"] == 4


def test_unknown_length_is_asked_for():
    token = repeated(lambda t, n: ops.tile(t, (n, 1, 1)))
    model = chain(token, x=STEPS, shape=(None, 4))
    (closed,) = build_graph(model, has_rule).closed
    assert closed[0] == "t"
    assert closed[1].endswith(
        "sizes of its input are not known: length=… states them, and the "
        "smaller model takes inputs of that length"
    )
    small = shrunk(model, STEPS, length=5, opened=("t",))
    assert small.input_shape == (None, 5, 4)


class Places(layers.Layer):
    """An Embedding of numbers that are no input; a causal mask."""

    def __init__(self, tiled=False, **kwargs):
        super().__init__(**kwargs)
        self.tiled = tiled
        self.table = layers.Embedding(9, 6, name="table")
        self.q = layers.Dense(6, name="q")
        self.k = layers.Dense(6, name="k")

    def call(self, x):
        size, steps = ops.shape(x)[0], ops.shape(x)[1]
        numbers = ops.arange(steps)[None]
        if self.tiled:
            numbers = ops.tile(numbers, (size, 1))
        x = x + self.table(numbers)
        scores = ops.matmul(self.q(x), ops.transpose(self.k(x), (0, 2, 1)))
        mask = ops.tril(ops.ones((steps, steps)))
        return ops.matmul(ops.softmax(scores - 1e9 * (1 - mask)), x)


@pytest.mark.parametrize("tiled", [False, True])
def test_layers_of_numbers_and_causal_masks(tiled):
    model = chain(Places(tiled, name="p"), x=STEPS)
    small = shrunk(model, STEPS, opened=("p",))
    assert units_of(small)["p/q/units"] == 4
    assert small.get_layer("p_table").embeddings.shape == (9, 4)


def test_numbers_for_each_example():
    class State(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.lstm = layers.LSTM(5, name="lstm")

        def call(self, x):
            size = ops.shape(x)[0]
            state = [ops.ones((size, 5)), ops.zeros((size, 5))]
            return self.lstm(x, initial_state=state), ops.ones((size, 2))

    inputs = keras.Input((5, 4))
    outputs, ones = State(name="s")(inputs)
    model = keras.Model(inputs, [layers.Dense(2)(outputs), ones])
    small = shrunk(randomize(model), STEPS, opened=("s",))
    assert units_of(small)["s/lstm/units"] == 3


def test_sizes_that_are_multiples_of_the_batch_that_stands_out():
    class Big(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.a = layers.Dense(1009, name="a")
            self.b = layers.Dense(4, name="b")

        def build(self, shape):
            self.a.build(shape)
            self.b.build((None, 1009))
            self.token = self.add_weight((1, 4), name="token")

        def call(self, x):
            size = ops.shape(x)[0]
            x = ops.reshape(self.a(x), (size, 1009))
            return self.b(x) + ops.tile(self.token, (size, 1))

    small = shrunk(chain(Big(name="b")), FLAT, opened=("b",))
    assert units_of(small)["b/a/units"] == 1007


def test_arguments_and_structures():
    class Many(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.a = layers.Dense(6, name="a")
            self.b = layers.Dense(6, name="b")

        def build(self, shape, **kwargs):
            self.a.build(shape)
            self.b.build(shape)

        def call(self, x, other=None, scale=2.0, *, extra=None):
            y = self.a(x) * scale
            if other is not None:
                y = y + self.b(other)
            if extra is not None:
                y = y * extra["e"]
            return {"z": y, "a": (x, {"n": self.b(x)})}

    many = Many(name="m")
    inputs = keras.Input((4,))
    x = layers.Dense(6, name="first")(inputs)
    many.build((None, 6))
    y = many(x, other=x)
    z = many(y["z"], scale=0.5)
    w = many(z["a"][1]["n"], y["a"][0], extra={"e": x})
    model = keras.Model(
        inputs,
        {"q": layers.Dense(2)(w["z"]), "p": [layers.Dense(3)(z["z"])]},
    )
    small = shrunk(randomize(model), FLAT, opened=("m",))
    assert small(FLAT).keys() == {"q", "p"}
    assert isinstance(small(FLAT)["p"], list)


def test_inner_results_that_are_no_tensors():
    class Pair(Inner):
        def call(self, x):
            return super().call(x), None, 3

    class Takes(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.pair = Pair(name="p")

        def call(self, x):
            y, nothing, number = self.pair(x)
            return y * number if nothing is None else x

        def compute_output_shape(self, shape):
            return shape

    model = chain(Takes(name="t"))
    small = shrunk(model, FLAT, opened=("t", "p"))
    assert units_of(small)["t/p/a/units"] == 4


# --- what does not open -------------------------------------------------------


class Stubborn(Inner):
    """Its call is a function of it and its input."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function
        self.seed = keras.random.SeedGenerator(1)
        self.mean = keras.metrics.Mean(name="mean")

    def build(self, shape):
        super().build(shape)
        self.factor = self.add_weight((), "ones", name="factor")
        self.held = _Plain(self.add_weight((6,), name="hidden"))

    def call(self, x):
        return self.function(self, x)

    def compute_output_spec(self, x):
        return keras.KerasTensor((None, 6), self.compute_dtype)


class _Plain:
    def __init__(self, variable):
        self.variable = variable


def _tf(layer, x):
    import tensorflow as tf

    return tf.nn.relu(layer.b(layer.a(x)))


def _if(layer, x):
    return x if ops.sum(x) > 0 else -x


def _loss(layer, x):
    layer.add_loss(ops.mean(x))
    return x


def _metric(layer, x):
    layer.mean.update_state(x)
    return x


def _assigns(layer, x):
    layer.factor.assign_add(1.0)
    return x


@pytest.mark.parametrize(
    "function, reason",
    [
        (_if, "TypeError: A symbolic KerasTensor cannot be used as a boolean"),
        (_tf, "ValueError: A KerasTensor cannot be used as input to a"),
        (_loss, "it adds a loss itself (add_loss)"),
        (_metric, "ValueError: A KerasTensor cannot be used as input to a"),
        (_assigns, "AttributeError: 'KerasTensor' object has no attribute"),
        (
            lambda layer, x: x * float(layer.factor.numpy()),
            "AttributeError: 'KerasTensor' object has no attribute 'numpy'",
        ),
        (
            lambda layer, x: x + ops.tanh(layer.held.variable),
            "it reads its variable s/hidden in a way that symbolic tensors do "
            "not show",
        ),
        (
            lambda layer, x: x + keras.random.normal((6,), seed=layer.seed),
            "it draws random numbers itself",
        ),
        (
            lambda layer, x: x / ops.shape(x)[0],
            "its operation TrueDivide is given the size of the batch",
        ),
        (
            lambda layer, x: x * (1 / ops.shape(x)[0]),
            "it computes with the size of its batch, or with random numbers",
        ),
        (
            lambda layer, x: x[: ops.shape(x)[0] - 1],
            "it computes with the size of its batch, or with random numbers",
        ),
        (
            lambda layer, x: x + ops.arange(ops.shape(x)[0])[:, None],
            "it makes an array with other numbers for each example",
        ),
        (
            lambda layer, x: ops.matmul(layer.a(x), layer.a.kernel),
            "it reads s/a/kernel itself, a variable of a, which is called too",
        ),
        (lambda layer, x: 3, "it returns no tensor"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_does_not_open_is_named(function, reason):
    model = chain(Stubborn(function, name="s"))
    before = [v.numpy() for v in model.variables]
    (closed,) = build_graph(model, has_rule).closed
    assert closed[0] == "s"
    assert closed[1].startswith(reason)
    assert ("s", closed[1]) in [
        (name, said) for name, said in tf_ssl.find_structures(model).skipped
    ]
    for value, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_the_line_that_fails_is_named():
    (closed,) = build_graph(chain(Stubborn(_if, name="s")), has_rule).closed
    assert (
        closed[1].endswith(": return x if ops.sum(x) > 0 else -x")
        and ", at test_composites.py:" in closed[1]
    )


# --- training -----------------------------------------------------------------


class DropPath(layers.Layer):
    """Stochastic depth."""

    def __init__(self, rate=0.25, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.seed = keras.random.SeedGenerator(1)

    def call(self, x, training=None):
        if not training:
            return x
        shape = (ops.shape(x)[0], *[1] * (len(x.shape) - 1))
        noise = keras.random.uniform(shape, seed=self.seed)
        return x * ops.floor(1 - self.rate + noise) / (1 - self.rate)

    def compute_output_shape(self, shape):
        return shape


class Residual(Inner):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.drop = DropPath(name="drop")

    def call(self, x, training=None):
        return x + self.drop(super().call(x), training=training)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("kind", [DropPath, Residual])
def test_stochastic_depth_becomes_dropout(kind, cut):
    model = chain(kind(name="d"))
    if cut:  # what flows through it, too
        small = shrunk(model, FLAT)
        assert small.get_layer("first").units == 4
    else:
        small = tf_ssl.shrink(model)
    (drop,) = [x for x in small.layers if isinstance(x, layers.Dropout)]
    assert drop.name == ("d" if kind is DropPath else "d_drop")
    assert (drop.rate, drop.noise_shape) == (0.25, (None, 1))
    ones = np.ones((4000, drop.input.shape[-1]), "float32")
    kept = np.asarray(drop(ones, training=True))
    assert (kept == kept[:, :1]).all()
    np.testing.assert_allclose(np.unique(kept), [0, 4 / 3], rtol=1e-6)
    # Binomial, sd 0.0068: beyond 5 sd once in 1.7 million runs.
    assert abs((kept[:, 0] == 0).mean() - 0.25) < 0.034


class Switch(Inner):
    """In training it does something else."""

    def call(self, x, training=None):
        return super().call(x) * (3.0 if training else 1.0)


def test_other_code_in_training_stays_closed():
    small = tf_ssl.shrink(chain(Switch(name="s")))
    assert type(small.get_layer("s")) is Switch
    x = np.asarray(small.layers[1](FLAT))
    inner = small.get_layer("s")
    assert_same(3 * inner(x), inner(x, training=True))


@pytest.mark.parametrize("default", [None, False, True])
def test_dropout_inside_is_told_of_training(default):
    class Drops(Inner):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.drop = layers.Dropout(0.5, name="drop")

        def call(self, x, training=default):
            return self.drop(super().call(x), training=bool(training))

    small = shrunk(chain(Drops(name="d")), FLAT, opened=("d",))
    small.compile("sgd", "mse")
    seen = [small(FLAT, training=True).numpy() for _ in range(2)]
    assert np.abs(seen[0] - seen[1]).max() > 0
    assert_same(small(FLAT), small(FLAT, training=False))


def test_losses_of_inner_layers_survive():
    class Regular(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.a = layers.Dense(
                6, kernel_regularizer="l2", activity_regularizer="l1", name="a"
            )

        def build(self, shape):
            self.a.build(shape)
            self.k = self.add_weight(
                (6, 6), regularizer="l2", constraint="non_neg", name="k"
            )

        def call(self, x):
            return ops.matmul(self.a(x), self.k)

    model = chain(Regular(name="r"))
    small = shrunk(model, FLAT, opened=("r",))
    model(FLAT)
    small(FLAT)
    assert len(small.losses) == 3
    np.testing.assert_allclose(
        sorted(map(float, small.losses)),
        sorted(map(float, model.losses)),
        rtol=1e-5,
    )
    weight = small.get_layer("r_k").value
    assert isinstance(weight.constraint, keras.constraints.NonNeg)


def test_own_activity_regularizer_stays():
    model = chain(Inner(activity_regularizer="l2", name="i"))
    assert build_graph(model, has_rule).closed == [
        ("i", "it has an activity regularizer itself")
    ]


def test_frozen_parts_stay_frozen():
    whole, part = Inner(name="whole"), Inner(name="part")
    model = chain(whole, part, Holder(name="h"))
    whole.trainable = False
    part.b.trainable = False
    model.get_layer("h").trainable = False
    small = shrunk(model, FLAT, opened=("whole", "part", "h"))
    assert {v.path for v in small.trainable_variables} == {
        *("first/kernel", "first/bias", "part_a/kernel", "part_a/bias"),
        *("last/kernel", "last/bias"),
    }


def test_weights_learn_also_compiled():
    model = chain(Holder(name="h"), Inner(name="i"))
    small = shrunk(model, FLAT, opened=("h", "i"))
    before = {v.path: v.numpy() for v in small.trainable_variables}
    small.compile("adam", "mse", jit_compile=True)
    small.fit(FLAT, np.ones((3, 3)), verbose=0)
    for variable in small.trainable_variables:
        assert np.abs(variable.numpy() - before[variable.path]).max() > 0


# --- masks --------------------------------------------------------------------

IDS = np.array([[1, 2, 3, 0, 0], [4, 5, 0, 0, 0], [1, 1, 1, 1, 1]], "int32")


class Embeds(layers.Layer):
    def __init__(self, states_mask=False, **kwargs):
        super().__init__(**kwargs)
        self.states_mask = states_mask
        self.table = layers.Embedding(9, 6, mask_zero=True, name="table")
        self.dense = layers.Dense(6, name="dense")

    def build(self, shape):
        self.table.build(shape)
        self.dense.build((None, None, 6))

    def call(self, x):
        return self.dense(self.table(x))

    def compute_mask(self, x, mask=None):
        return ops.not_equal(x, 0) if self.states_mask else None


class Passes(Inner):
    def __init__(self, passes=True, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = passes


class Masks(Passes):
    def call(self, x, mask=None):
        y = super().call(x)
        if mask is None:
            return y
        return y * ops.cast(mask, y.dtype)[..., None]


@pytest.mark.parametrize("last", ["pool", "lstm"])
@pytest.mark.parametrize(
    "made",
    [
        lambda: [layers.Embedding(9, 6, mask_zero=True), Passes(name="p")],
        lambda: [layers.Embedding(9, 6, mask_zero=True), Passes(False)],
        lambda: [layers.Embedding(9, 6, mask_zero=True), Masks(name="m")],
        lambda: [Embeds(name="e")],
        lambda: [Embeds(True, name="e"), Passes(name="p"), Masks(name="m")],
    ],
    ids=["passes", "stops", "takes", "inside", "states"],
)
def test_masks(made, last, tmp_path):
    outputs = inputs = keras.Input((None,), dtype="int32")
    for layer in made():
        outputs = layer(outputs)
    if last == "pool":
        outputs = layers.GlobalAveragePooling1D()(outputs)
    else:
        outputs = layers.LSTM(5)(outputs)
    model = randomize(keras.Model(inputs, layers.Dense(3)(outputs)))
    small = shrunk(model, IDS)
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    assert_same(small(IDS), again(IDS))
    longer = np.pad(IDS, ((0, 0), (0, 2)))
    assert_same(model(longer), again(longer))


# --- models that are subclasses -----------------------------------------------


class Net(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.a = layers.Dense(6, "relu", name="a")
        self.b = layers.Dense(3, name="b")

    def call(self, x, training=None):
        return self.b(self.a(x))


class OfDict(Net):
    def call(self, x):
        return {"o": super().call(x["p"]), "q": x["q"] * 2}


class OfList(Net):
    def call(self, x):
        first, second = x
        return [self.b(self.a(first) + self.a(second)), second]


class Nests(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stack = keras.Sequential(
            [layers.Dense(6, "relu"), layers.Dense(4)], name="stack"
        )
        self.net = Net(name="net")

    def build(self, shape):
        self.scale = self.add_weight((4,), name="scale")
        self.stack.build(shape)
        self.net.build(shape)

    def call(self, x):
        return self.net(self.stack(x) * self.scale)


@pytest.mark.parametrize(
    "kind, x, names",
    [
        (Net, FLAT, ["input"]),
        (OfDict, {"p": FLAT, "q": FLAT + 1}, ["p", "q"]),
        (OfList, [FLAT, FLAT + 1], ["input_0", "input_1"]),
        (OfList, (FLAT, FLAT + 1), ["input_0", "input_1"]),
        (Nests, FLAT, ["input"]),
    ],
    ids=["one", "dict", "list", "tuple", "nested"],
)
def test_subclassed_model(kind, x, names, tmp_path):
    model = kind()
    model(x)
    small = shrunk(randomize(model), x)
    assert [t.name for t in small.inputs] == names
    expected = keras.tree.map_structure(lambda t: 0, model(x))
    assert keras.tree.map_structure(lambda t: 0, small(x)) == expected
    small.save(tmp_path / "small.keras")
    assert_same(small(x), keras.models.load_model(tmp_path / "small.keras")(x))


def test_built_but_never_called():
    model = Net()
    with pytest.warns(UserWarning, match="does not have a `build"):
        model.build((None, 4))
    with pytest.raises(
        ValueError,
        match="a in it is not built: call the model on data once",
    ):
        tf_ssl.shrink(model)
    assert model.variables == []


def test_names_need_not_be_unique_in_a_subclass():
    class Same(Net):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.a = layers.Dense(6, "relu", name="input")
            self.b = layers.Dense(3, name="input")

    model = Same()
    model(FLAT)
    small = tf_ssl.shrink(randomize(model), sample=FLAT)
    assert_same(model(FLAT), small(FLAT))
    names = [layer.name for layer in small.layers]
    assert len(set(names)) == len(names) == 3


def _functional(kind):
    inputs = keras.Input((4,))
    x = layers.Dense(6, "relu", name="a")(inputs)
    return kind(inputs, layers.Dense(3, name="b")(x))


def test_call_of_a_functional_subclass_is_followed():
    class Twice(type(_functional(keras.Model))):
        def call(self, x, training=None, mask=None):
            return 2 * super().call(x, training=training)

    small = shrunk(randomize(_functional(Twice)), FLAT)
    assert small.get_layer("a").units == 4


def test_call_of_a_sequential_subclass_is_followed():
    class Twice(keras.Sequential):
        def call(self, x, training=None, mask=None):
            return 2 * super().call(x, training=training)

    class Plain(keras.Sequential):
        pass

    made = [keras.Input((4,)), layers.Dense(6, name="a"), layers.Dense(3)]
    shrunk(randomize(Twice(made)), FLAT)
    made = [keras.Input((4,)), layers.Dense(6, name="a"), layers.Dense(3)]
    small = shrunk(randomize(Plain(made)), FLAT)
    assert isinstance(small, keras.Sequential)


def test_models_that_cannot_be_opened():
    class Two(Net):
        def call(self, x, y):
            return super().call(x + y)

    two = Two()
    two(FLAT, FLAT)
    for model, reason in [
        (
            two,
            "its call takes several arguments, x, y: let it take one list or "
            "dict of them",
        ),
        (Net(), "the shape of its input is not known: call it on data once"),
    ]:
        with pytest.raises(ValueError) as error:
            tf_ssl.shrink(model)
        assert str(error.value) == (
            "Invalid value for argument model. Expected a built Functional or "
            f"Sequential model. Received: {model!r}. A subclass of keras.Model "
            "is opened by calling it on symbolic tensors, which failed: "
            f"{reason}. Or build the same layers with the functional API, "
            "keras.Model(inputs, outputs)."
        )

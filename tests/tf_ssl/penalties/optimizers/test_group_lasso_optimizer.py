"""GroupLassoOptimizer as a Keras optimizer."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_terngrad as tg
from tf_ssl.penalties import papers
from tf_ssl.penalties.optimizers import keras_hooks, optimizer_wrapper
from tf_ssl.penalties.optimizers.group_lasso_optimizer import (
    GroupLassoOptimizer,
    find_group_lasso,
)
from tf_ssl.structures.structure import Slice, Structure, Structures

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype(np.float32)
Y = (X @ RNG.normal(size=(6, 1)) > 0).astype(np.float32)

Adam = keras.optimizers.Adam
LossScale = keras.optimizers.LossScaleOptimizer
Sgd = keras.optimizers.SGD


def make_model(seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.ReLU(),
            keras.layers.Dense(1, name="logits"),
        ],
        name="mlp",
    )


def hidden_units(model):
    hidden, norm = model.get_layer("hidden"), model.get_layer("norm")
    units = np.arange(8)
    return Structure(
        "hidden/units",
        8,
        (
            Slice(hidden.kernel, "out", units[None]),
            Slice(norm.gamma, "norm", units),
            Slice(norm.moving_mean, "stat", units),
            Slice(model.get_layer("logits").kernel, "in", units[:, None]),
        ),
        roles=("out", "in"),
    )


def compile_model(model, optimizer, **kwargs):
    kwargs = {"jit_compile": False, "auto_scale_loss": False} | kwargs
    model.compile(
        optimizer, keras.losses.BinaryCrossentropy(from_logits=True), **kwargs
    )
    return model


def fit(model, epochs=1, batch_size=16, **kwargs):
    return model.fit(
        X,
        Y,
        batch_size=batch_size,
        epochs=epochs,
        verbose=0,
        shuffle=False,
        **kwargs,
    )


def weights(model):
    return [v.numpy() for v in model.trainable_variables]


def assert_equal(model, other, **kwargs):
    for a, b in zip(weights(model), weights(other), strict=True):
        np.testing.assert_allclose(a, b, **kwargs)


def _trained(inner, wrap=lambda o: o, epochs=2, fitting=None, **arguments):
    model = make_model()
    arguments = {"strength": 0.05} | arguments
    optimizer = GroupLassoOptimizer(inner, [hidden_units(model)], **arguments)
    compile_model(model, wrap(optimizer))
    fit(model, epochs, **(fitting or {}))
    return model


class Toy:
    """1/2 ||w - target||^2 over a kernel of 4 units and what reads them."""

    def __init__(self):
        rng = np.random.default_rng(5)
        self.targets = [rng.normal(size=(3, 4)), rng.normal(size=(4, 2))]
        self.targets[0][:, :2] *= 0.02
        self.targets[1][:2] *= 0.02
        self.variables = [
            keras.Variable(rng.normal(size=t.shape), dtype="float32", name=n)
            for t, n in zip(self.targets, ("kernel", "next"), strict=True)
        ]
        units = np.arange(4)
        self.structure = Structure(
            "layer/units",
            4,
            (
                Slice(self.variables[0], "out", units[None]),
                Slice(self.variables[1], "in", units[:, None]),
            ),
            roles=("out", "in"),
        )

    def wrap(self, inner, update, **arguments):
        arguments = {"threshold": 0.02, "strength": 0.1} | arguments
        return GroupLassoOptimizer(
            inner, [self.structure], update=update, **arguments
        )

    def minimize(self, optimizer, steps, micro_steps=1):
        """Values after steps of micro_steps gradients with the same mean."""
        optimizer.build(self.variables)
        noise = np.array([1.0] if micro_steps == 1 else [3.0, -1.0, 0.5, 1.5])

        @tf.function
        def step(factor):
            gradients = [
                optimizer.scale_loss(factor * (v.value - t))
                for v, t in zip(self.variables, self.targets, strict=True)
            ]
            optimizer.apply(gradients, self.variables)

        for _ in range(steps):
            for factor in noise:
                step(tf.constant(factor, tf.float32))
        return [v.numpy() for v in self.variables]


UPDATES = pytest.mark.parametrize("update", ["subgradient", "proximal"])


def assert_same(values, others, **kwargs):
    for a, b in zip(values, others, strict=True):
        np.testing.assert_allclose(a, b, **({"atol": 1e-6} | kwargs))


@UPDATES
def test_without_strength_it_is_the_optimizer_alone(update):
    plain = Toy().minimize(Adam(0.05), 20)
    toy = Toy()
    optimizer = toy.wrap(Adam(0.05), update, strength=0.0, threshold=0.0)
    assert_same(toy.minimize(optimizer, 20), plain)


@pytest.mark.parametrize(
    "update, jit_compile",
    [("subgradient", False), ("proximal", False), ("proximal", True)],
)
def test_units_die_in_fit(update, jit_compile):
    model = make_model()
    structure = hidden_units(model)
    optimizer = GroupLassoOptimizer(
        Adam(0.03),
        [structure],
        0.1,
        update=update,
        threshold=0.05,
        threshold_by="group" if update == "subgradient" else "element",
    )
    compile_model(
        model, optimizer, jit_compile=jit_compile, steps_per_execution=2
    )
    fit(model, 15)
    assert 0 < (structure.norms() == 0).sum() < 8
    assert float(optimizer.group_lasso) == pytest.approx(
        0.1 * structure.norms().sum(), rel=0.3
    )


@UPDATES
def test_accumulation_equals_a_larger_batch(update):
    """Penalty, step and threshold act on every fourth micro-step only."""
    toy = Toy()
    plain = toy.minimize(toy.wrap(Sgd(0.1, momentum=0.5), update), 40)
    toy = Toy()
    inner = Sgd(0.1, momentum=0.5, gradient_accumulation_steps=4)
    optimizer = toy.wrap(inner, update)
    accumulated = toy.minimize(optimizer, 40, micro_steps=4)
    assert_same(accumulated, plain, atol=1e-5)
    assert int(optimizer.iterations) == 40
    assert (plain[0] == 0).any() and (plain[0] != 0).any()


@UPDATES
def test_nothing_happens_between_updates(update):
    toy = Toy()
    before = [v.numpy() for v in toy.variables]
    optimizer = toy.wrap(
        Sgd(0.1, gradient_accumulation_steps=3), update, strength=10.0
    )
    zeros = [tf.zeros(v.shape) for v in toy.variables]
    for _ in range(2):
        optimizer.apply(zeros, toy.variables)
        assert_same([v.numpy() for v in toy.variables], before, atol=0, rtol=0)
    optimizer.apply(zeros, toy.variables)
    assert (toy.variables[0].numpy() != before[0]).all()


@UPDATES
def test_loss_scale(update):
    toy = Toy()
    plain = toy.minimize(toy.wrap(Adam(0.05), update), 20)
    toy = Toy()
    inside = toy.minimize(toy.wrap(LossScale(Adam(0.05)), update), 20)
    assert_same(inside, plain, atol=1e-5)
    toy = Toy()
    around = toy.minimize(LossScale(toy.wrap(Adam(0.05), update)), 20)
    assert_same(around, plain, atol=1e-5)


@UPDATES
def test_a_skipped_step_changes_nothing(update):
    variable = keras.Variable(np.ones((2, 3)), dtype="float32", name="w")
    structure = Structure("s", 3, (Slice(variable, "out", np.arange(3)[None]),))
    optimizer = GroupLassoOptimizer(
        LossScale(Sgd(1.0)), [structure], 0.5, update=update
    )
    optimizer.apply([tf.fill([2, 3], np.inf)], [variable])
    np.testing.assert_array_equal(variable, np.ones((2, 3)))
    assert int(optimizer.iterations) == 0


@pytest.mark.parametrize("clip, factor", [("outside", 0.0), ("inside", 1.0)])
@pytest.mark.parametrize(
    "limit", [{"clipnorm": 0.1}, {"global_clipnorm": 0.1}, {"clipvalue": 0.05}]
)
def test_clip(limit, clip, factor):
    """Strength 100 is cut to the limit, or not."""
    variable = keras.Variable(np.full((1, 2), 5.0), dtype="float32", name="w")
    structure = Structure("s", 2, (Slice(variable, "out", np.arange(2)[None]),))
    optimizer = GroupLassoOptimizer(
        Sgd(0.01, **limit), [structure], 100.0, "subgradient", clip=clip
    )
    optimizer.apply([tf.zeros([1, 2])], [variable])
    moved = 5.0 - variable.numpy()
    if clip == "outside":
        np.testing.assert_allclose(moved, [[1.0, 1.0]], rtol=1e-5)
    else:
        assert 0 < moved.max() <= 0.001


@UPDATES
def test_sparse_gradients(update):
    variable = keras.Variable(
        np.ones((4, 2)), dtype="float32", name="embeddings"
    )
    structure = Structure("s", 2, (Slice(variable, "out", np.arange(2)[None]),))
    optimizer = GroupLassoOptimizer(Sgd(1.0), [structure], 1.0, update=update)
    gradient = tf.IndexedSlices(
        tf.ones([2, 2]), tf.constant([1, 1]), tf.constant([4, 2])
    )
    optimizer.apply([gradient], [variable])
    expected = np.full((4, 2), 0.5)
    expected[1] -= 2
    if update == "proximal":  # a column is (1, -1, 1, 1) after SGD
        expected = np.full((4, 2), 0.5)
        expected[1] = -0.5
    np.testing.assert_allclose(variable, expected)


@UPDATES
@pytest.mark.parametrize("overwrite", [None, 4])
def test_averages_of_weights_keep_the_zeros(overwrite, update):
    inner = Sgd(
        0.1,
        use_ema=True,
        ema_momentum=0.5,
        ema_overwrite_frequency=overwrite,
    )
    toy = Toy()
    optimizer = toy.wrap(inner, update)
    assert optimizer.use_ema
    before = toy.minimize(optimizer, 60)
    optimizer.finalize_variable_values(toy.variables)
    kernel = toy.variables[0].numpy()
    average = inner._model_variables_moving_average[0].numpy()
    alive = kernel != 0
    np.testing.assert_array_equal(kernel[alive], average[alive])
    assert alive.any() and (average != 0).all()
    if update == "subgradient":
        np.testing.assert_array_equal(alive, np.abs(average) >= 0.02)
    else:
        np.testing.assert_array_equal(alive, before[0] != 0)
    assert not alive.all()


@UPDATES
def test_inside_distributed_optimizer(update):
    """One process, no compression: as alone."""
    toy = Toy()
    plain = toy.minimize(toy.wrap(Sgd(0.1, momentum=0.9), update), 20)
    toy = Toy()
    optimizer = toy.wrap(Sgd(0.1, momentum=0.9), update)
    distributed = tg.DistributedOptimizer(optimizer, tg.NoCompression())
    assert_same(toy.minimize(distributed, 20), plain)
    assert find_group_lasso(distributed) is optimizer


def test_distributed_optimizer_takes_the_accumulation():
    toy = Toy()
    optimizer = toy.wrap(
        LossScale(Sgd(0.1, gradient_accumulation_steps=4)), "subgradient"
    )
    distributed = tg.DistributedOptimizer(optimizer, tg.TernGrad())
    assert distributed.gradient_accumulation_steps == 4
    assert optimizer.gradient_accumulation_steps is None


@UPDATES
def test_with_ternary_gradients(update):
    toy = Toy()
    optimizer = toy.wrap(Sgd(0.05), update)
    values = toy.minimize(tg.DistributedOptimizer(optimizer, tg.TernGrad()), 60)
    np.testing.assert_allclose(values[0], toy.targets[0], atol=0.5)
    assert float(optimizer.group_lasso) > 0


@pytest.mark.parametrize(
    "wrapper, arguments",
    [
        ("none", dict(update="subgradient", threshold=0.01, clip="inside")),
        (
            "loss scale",
            dict(update="proximal", strength={"hid*": 0.05}, scale="inv_sqrt"),
        ),
        (
            "distributed",
            dict(update="proximal", metric="euclidean", roles=("out",)),
        ),
    ],
)
def test_keras_file_round_trip(tmp_path, arguments, wrapper):
    wrap = {
        "none": lambda o: o,
        "loss scale": LossScale,
        "distributed": lambda o: tg.DistributedOptimizer(o, tg.NoCompression()),
    }[wrapper]
    model = _trained(Adam(0.01), wrap, **arguments)
    find_group_lasso(model.optimizer).strength = 0.07
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")

    optimizer = find_group_lasso(loaded.optimizer)
    original = find_group_lasso(model.optimizer)
    assert type(optimizer) is GroupLassoOptimizer
    # Keras forgets the scope of a Sequential.
    saved = json.dumps(original.get_config()).replace("mlp/", "")
    assert json.dumps(optimizer.get_config()) == saved
    assert float(optimizer.strength[0]) == 0.07
    assert optimizer.initial_strength == arguments.get("strength", 0.05)
    (structure,) = optimizer.structures
    assert structure.slices[0].variable is loaded.get_layer("hidden").kernel
    for a, b in zip(
        model.optimizer.variables, loaded.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(a, b)
    # Training goes on as if nothing had happened.
    model.train_on_batch(X, Y)
    loaded.train_on_batch(X, Y)
    assert_equal(model, loaded, rtol=0)


def test_config_round_trip_before_building():
    model = make_model()
    optimizer = GroupLassoOptimizer(
        Sgd(0.25), [hidden_units(model)], 0.1, overlap=None, name="mine"
    )
    config = keras.saving.serialize_keras_object(optimizer)
    copy = keras.saving.deserialize_keras_object(config)
    assert copy.get_config() == optimizer.get_config()
    assert copy.name == "mine" and float(copy.learning_rate) == 0.25
    # Moving statistics are not trained, and not in the configuration.
    roles = [s["role"] for s in copy.get_config()["structures"][0]["slices"]]
    assert roles == ["out", "norm", "in"]
    copy.build(model.trainable_variables)
    assert copy.structures[0].slices[2].role == "in"
    other = keras.saving.deserialize_keras_object(config)
    with pytest.raises(ValueError) as error:
        other.build(model.get_layer("hidden").trainable_variables)
    assert str(error.value) == (
        "Structure hidden/units has weights in the variable mlp/norm/gamma. "
        "Expected one variable of that path. Received: 0"
    )


def test_configs_of_before_are_read():
    """Units as lists; proximal with a clip, which meant nothing."""
    toy = Toy()
    config = toy.wrap(Sgd(0.1), "proximal").get_config()
    for part, entry in zip(
        toy.structure.slices, config["structures"][0]["slices"], strict=True
    ):
        entry["units"] = part.units.tolist()
    config["clip"] = "inside"
    copy = GroupLassoOptimizer.from_config(config)
    copy.build(toy.variables)
    assert copy.clip == "outside"
    assert float(copy.penalty()) == pytest.approx(
        0.1 * toy.structure.norms().sum()
    )


def test_checkpoint(tmp_path):
    optimizers = []
    for strength in (0.1, 0.4):
        toy = Toy()
        optimizers.append(
            toy.wrap(Sgd(0.1, momentum=0.9), "proximal", strength=strength)
        )
        toy.minimize(optimizers[-1], 3)
    optimizer, other = optimizers
    tf.train.Checkpoint(optimizer=optimizer).save(tmp_path / "step")
    tf.train.Checkpoint(optimizer=other).restore(
        tf.train.latest_checkpoint(tmp_path)
    )
    assert float(other.strength[0]) == 0.1
    for a, b in zip(optimizer.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_settings_are_those_of_the_wrapped_optimizer():
    inner = Sgd(0.5, use_ema=True)
    optimizer = GroupLassoOptimizer(inner, [hidden_units(make_model())], 0.1)
    optimizer.learning_rate = 0.125
    assert float(inner.learning_rate) == 0.125 == float(optimizer.learning_rate)
    optimizer.loss_scale_factor = 8.0
    assert inner.loss_scale_factor == optimizer.loss_scale_factor == 8.0
    optimizer.use_ema = False
    assert not inner.use_ema and not optimizer.use_ema
    assert float(optimizer.scale_loss(tf.constant(2.0))) == 16.0
    assert optimizer_wrapper.innermost(optimizer) is inner
    assert find_group_lasso(inner) is None


def test_the_wrapped_optimizer_is_left_as_it_was():
    toy = Toy()
    toy.minimize(toy.wrap(inner := Sgd(0.1), "proximal"), 1)
    assert "_backend_update_step" not in inner.__dict__
    assert "_backend_apply_gradients" not in inner.__dict__
    with pytest.raises(RuntimeError):
        with keras_hooks.methods_replaced(inner, {"apply": None}):
            raise RuntimeError
    assert "apply" not in inner.__dict__


def test_strength_is_a_variable():
    model = make_model()
    structures = [hidden_units(model), hidden_units(model)]
    structures[1].name = "other"
    optimizer = GroupLassoOptimizer(Sgd(0.1), structures, {"hidden/*": 0.1})
    np.testing.assert_array_equal(optimizer.strength, [0.1, 0])
    optimizer.strength = 0.5
    np.testing.assert_array_equal(optimizer.strength, [0.5, 0])
    optimizer.strength = {"h*": 2.0}
    np.testing.assert_array_equal(optimizer.strength, [2.0, 0])
    optimizer.strength = [1.0, 0.0]
    np.testing.assert_array_equal(optimizer.strength, [1.0, 0])
    for value in ({"o*": 2.0}, [1.0, 3.0]):
        with pytest.raises(ValueError) as error:
            optimizer.strength = value
        assert str(error.value) == (
            "Structure other was left alone by the patterns that the optimizer "
            "was made with, and takes no part. Make it with a pattern for it. "
            f"Received: strength={value!r}"
        )
    assert optimizer.initial_strength == {"hidden/*": 0.1}
    with pytest.raises(ValueError) as error:
        optimizer.strength = [1.0]
    assert str(error.value) == (
        "Invalid value for argument strength. Expected one number for each of "
        "2 structures. Received: strength=[1.0]"
    )


def test_structures_that_no_pattern_matches_keep_small_weights():
    variables = [
        keras.Variable(np.full((1, 2), 1e-6), dtype="float32", name=n)
        for n in "ab"
    ]
    structures = [
        Structure(v.name, 2, (Slice(v, "out", np.arange(2)[None]),))
        for v in variables
    ]
    for by in ("element", "group"):
        optimizer = GroupLassoOptimizer(
            Sgd(0.1), structures, {"a": 0.0}, "subgradient", threshold_by=by
        )
        optimizer.apply([tf.zeros([1, 2])] * 2, variables)
        assert (variables[0].numpy() == 0).all()
        assert (variables[1].numpy() != 0).all()


def test_structures_that_no_pattern_matches_may_overlap():
    toy = Toy()
    rows = Structure(
        "layer/input",
        3,
        (Slice(toy.variables[0], "in", np.arange(3)[:, None]),),
        roles=("in",),
    )
    optimizer = GroupLassoOptimizer(
        Sgd(0.1),
        [rows, toy.structure],
        {"*/units": 0.1},
        update="proximal",
    )
    plain = Toy()
    assert_same(
        toy.minimize(optimizer, 10),
        plain.minimize(plain.wrap(Sgd(0.1), "proximal"), 10),
    )
    copy = GroupLassoOptimizer.from_config(optimizer.get_config())
    copy.build(toy.variables)
    assert copy.get_config() == optimizer.get_config()
    assert float(copy.penalty()) == pytest.approx(float(optimizer.penalty()))


def test_threshold_of_all_variables_warns():
    variables = [
        keras.Variable(np.full(2, 1e-6), dtype="float32", name=n) for n in "ab"
    ]
    structure = Structure("s", 2, (Slice(variables[0], "out", np.arange(2)),))
    with pytest.warns(UserWarning) as warned:
        optimizer = GroupLassoOptimizer(
            Sgd(0.1), [structure], 0.0, "subgradient", threshold_all=True
        )
    assert str(warned[0].message) == (
        "threshold_all=True: biases, shifts and all other weights that begin "
        "at 0 stay there until one step moves them by more than 0.0001. It is "
        "meant for repeating results of the papers."
    )
    assert warned[0].filename == __file__
    optimizer.apply([tf.zeros(2)] * 2, variables)
    assert (variables[1].numpy() == 0).all()


def _structure():
    variable = keras.Variable(np.ones((2, 3)), dtype="float32", name="w")
    return Structure("s", 3, (Slice(variable, "out", np.arange(3)[None]),))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"update": "prox"},
            "Invalid value for argument update. Expected one of "
            "{'subgradient', 'proximal'}. Received: update='prox'",
        ),
        (
            {"threshold": -1.0},
            "Invalid value for argument threshold. Expected a finite number "
            ">= 0. Received: threshold=-1.0",
        ),
        (
            {"threshold_by": "unit"},
            "Invalid value for argument threshold_by. Expected one of "
            "{'element', 'group'}. Received: threshold_by='unit'",
        ),
        (
            {"scale": None},
            "Invalid value for argument scale. Expected one of {'none', "
            "'sqrt', 'inv_sqrt'}. Received: scale=None",
        ),
        (
            {"clip": "in"},
            "Invalid value for argument clip. Expected one of {'outside', "
            "'inside'}. Received: clip='in'",
        ),
        (
            {"metric": "adam"},
            "Invalid value for argument metric. Expected one of {'inner', "
            "'euclidean'}. Received: metric='adam'",
        ),
        (
            {"overlap": "x"},
            "Invalid value for argument overlap. Expected one of {None, "
            "'dykstra'}. Received: overlap='x'",
        ),
        (
            {"update": "subgradient", "overlap": "dykstra"},
            "Invalid value for argument overlap. Expected None with "
            "update='subgradient', to which overlaps are no matter. Received: "
            "overlap='dykstra'",
        ),
        (
            {"roles": ("out", "stat")},
            "Invalid value for argument roles. Expected None or some of "
            "('out', 'norm', 'in'). Received: roles=('out', 'stat')",
        ),
        (
            {"roles": "out"},
            "Invalid value for argument roles. Expected None or some of "
            "('out', 'norm', 'in'). Received: roles='out'",
        ),
        (
            {"threshold_by": "group"},
            "Invalid value for argument threshold_by. Expected 'element' with "
            "update='proximal', which has exact zeros without a threshold, "
            "counts each weight once and adds nothing to gradients. Received: "
            "threshold_by='group'. Pass update='subgradient' with it.",
        ),
        (
            {"clip": "inside"},
            "Invalid value for argument clip. Expected 'outside' with "
            "update='proximal', which has exact zeros without a threshold, "
            "counts each weight once and adds nothing to gradients. Received: "
            "clip='inside'. Pass update='subgradient' with it.",
        ),
        (
            {"double_count": True},
            "Invalid value for argument double_count. Expected False with "
            "update='proximal', which has exact zeros without a threshold, "
            "counts each weight once and adds nothing to gradients. Received: "
            "double_count=True. Pass update='subgradient' with it.",
        ),
    ],
)
def test_what_arguments_are_not(arguments, message):
    with pytest.raises(ValueError) as error:
        GroupLassoOptimizer(Sgd(), [_structure()], 1.0, **arguments)
    assert str(error.value) == message


def test_which_optimizers():
    with pytest.raises(TypeError) as error:
        GroupLassoOptimizer(
            LossScale(keras.optimizers.Lion()), [_structure()], 1.0
        )
    assert str(error.value) == (
        "Invalid type for argument optimizer. Expected one of {SGD, Adam, "
        "AdamW, Nadam, Adamax, RMSprop, Adagrad} with update='proximal', whose "
        "metrics are known. Received: Lion. Use one of these, "
        "metric='euclidean' or update='subgradient'."
    )
    for arguments in ({"update": "subgradient"}, {"metric": "euclidean"}):
        structure = _structure()
        optimizer = GroupLassoOptimizer(
            keras.optimizers.Lion(0.5), [structure], 1.0, **arguments
        )
        variable = structure.slices[0].variable
        optimizer.apply([tf.zeros([2, 3])], [variable])
        assert (variable.numpy() < 1).all()
    with pytest.raises(TypeError) as error:
        GroupLassoOptimizer("sgd", [_structure()], 1.0)
    assert str(error.value) == (
        "Invalid type for argument optimizer. Expected a Keras 3 optimizer (an "
        "instance of keras.optimizers.Optimizer). Received: optimizer='sgd'"
    )

    class Own(Sgd):
        def apply(self, grads, trainable_variables=None):
            pass

    with pytest.raises(TypeError) as error:
        GroupLassoOptimizer(Own(), [_structure()], 1.0)
    assert str(error.value) == (
        "Invalid type for argument optimizer. Expected an optimizer that "
        "updates through keras.optimizers.Optimizer.apply, where the group "
        "Lasso acts. Received: Own, which has an apply of its own"
    )


@pytest.mark.parametrize("structures", [[], None, ["conv"], [{"name": "a"}]])
def test_what_structures_are_not(structures):
    with pytest.raises(TypeError) as error:
        GroupLassoOptimizer(Sgd(), structures, 1.0)
    assert str(error.value) == (
        "Invalid type for argument structures. Expected a list of one "
        "tf_ssl.Structure or more, as find_structures(model) returns. "
        f"Received: structures={structures!r}"
    )


def test_structures_of_other_variables():
    optimizer = GroupLassoOptimizer(Sgd(), [_structure()], 1.0)
    with pytest.raises(ValueError) as error:
        optimizer.build([keras.Variable([1.0], name="v")])
    assert str(error.value) == (
        "Invalid value for argument structures. Expected one at least that "
        "counts weights which this optimizer trains. Received: s: what it "
        "counts is not trained: w"
    )
    structure = _structure()
    optimizer = GroupLassoOptimizer(Sgd(), [structure], 1.0, roles=("in",))
    with pytest.raises(ValueError) as error:
        optimizer.build([structure.slices[0].variable])
    assert str(error.value) == (
        "Invalid value for argument structures. Expected one at least that "
        "counts weights which this optimizer trains. Received: s: it has no "
        "slice with one of the roles ('in',)"
    )


def test_what_is_not_trained_is_skipped():
    """Of a structure the part that is trained counts."""
    toy, other = Toy(), _structure()
    structures = Structures([other, toy.structure])
    optimizer = GroupLassoOptimizer(Sgd(0.1), structures, 0.1)
    assert optimizer.skipped == []
    optimizer.build(toy.variables[1:])
    assert optimizer.skipped == [("s", "what it counts is not trained: w")]
    expected = 0.1 * toy.structure.norms(("in",)).sum()
    assert float(optimizer.penalty()) == pytest.approx(expected)
    assert list(optimizer.dead_units()) == ["layer/units"]
    before = toy.variables[0].numpy()
    optimizer.apply([tf.zeros((4, 2))], toy.variables[1:])
    assert float(optimizer.group_lasso) < expected
    np.testing.assert_array_equal(toy.variables[0], before)
    # Saved and made again it is the same.
    copy = GroupLassoOptimizer.from_config(optimizer.get_config())
    copy.build(toy.variables[1:])
    assert [name for name, _ in copy.skipped] == ["s"]
    assert float(copy.penalty()) == pytest.approx(float(optimizer.penalty()))


def test_the_papers_options():
    for update, keywords in (
        (papers.ISS, {}),
        ("subgradient", {"clip": "inside", "double_count": True}),
    ):
        optimizer = GroupLassoOptimizer(
            Sgd(), [_structure()], 1.0, update, **keywords
        )
        assert optimizer.update == "subgradient"
        assert optimizer.papers == papers.ISS
        assert optimizer.clip == "inside" and optimizer.double_count
        assert optimizer.threshold == 1e-4
    config = optimizer.get_config()
    assert config["update"] == "subgradient" and config["clip"] == "inside"
    assert GroupLassoOptimizer.from_config(config).papers == papers.ISS
    for update, keyword, ending in (
        ("proximal", "treshold", ""),
        (papers.SSL, "clip", f" beside update={papers.SSL!r}"),
    ):
        with pytest.raises(TypeError) as error:
            GroupLassoOptimizer(
                Sgd(), [_structure()], 1.0, update, **{keyword: 1}
            )
        assert str(error.value) == (
            "GroupLassoOptimizer got an unexpected keyword argument "
            f"{keyword!r}{ending}"
        )

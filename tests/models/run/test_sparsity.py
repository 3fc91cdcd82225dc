"""What the flags of structured sparsity do to a model and its optimizer."""

import re

import keras
import numpy as np
import pytest

import tf_ssl
from models.mlp import mlp
from models.resnet_cifar import resnet_cifar
from models.run import Sparsity, UnitCounts


@pytest.fixture(autouse=True)
def forget_models():
    yield
    keras.utils.clear_session()


def small(**options):
    return mlp((6,), num_classes=3, hidden=(8, 5), seed=0, **options)


def sgd():
    # To 0, so that what is near zero does not jump around it.
    rate = keras.optimizers.schedules.CosineDecay(0.1, 300)
    return keras.optimizers.SGD(rate, momentum=0.9)


def fit(model, optimizer, sparsity, batches=4, log_dir=None):
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
        auto_scale_loss=False,
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16 * batches, 6)).astype("float32")
    y = (x[:, 0] > 0).astype("int64")  # one input of six matters
    return model.fit(
        x,
        y,
        batch_size=16,
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=sparsity.callbacks(log_dir),
    ).history


def test_without_flags_nothing_changes():
    sparsity = Sparsity()
    model, optimizer = small(), sgd()
    sparsity.regularize(model)
    assert not sparsity.active
    assert not model.losses
    assert sparsity.wrap(optimizer, model) is optimizer
    assert sparsity.callbacks("logs") == []


def test_group_lasso_makes_groups_of_zeros():
    sparsity = Sparsity(["hidden*@filter+channel:0.03"], threshold=0.01)
    model = small()
    sparsity.regularize(model)
    assert sparsity.active
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    lasso = tf_ssl.GroupLasso(0.03, ("filter", "channel"))
    want = sum(float(lasso(v)) for v in kernels[:2])
    assert float(sum(model.losses)) == pytest.approx(want, rel=1e-5)
    assert kernels[2].regularizer is None
    optimizer = sparsity.wrap(sgd(), model)
    history = fit(model, optimizer, sparsity, batches=150)
    first = kernels[0].numpy()
    assert (~first.any(axis=1)).sum() >= 3  # inputs
    assert (~first.any(axis=0)).sum() >= 3  # neurons
    assert history["zero_rows"][-1] > 0.2
    assert kernels[2].numpy().all()  # neither penalized nor thresholded


def test_threshold_is_of_the_regularized_kernels():
    for threshold, want in ((1e-2, 0), (0.0, 1)):
        sparsity = Sparsity(["hidden1@filter:0"], threshold=threshold)
        model = small()
        sparsity.regularize(model)
        optimizer = sparsity.wrap(sgd(), model)
        variables = model.trainable_variables
        kernels = [v for v in variables if v.name == "kernel"]
        optimizer.build(variables)
        for kernel in kernels:
            kernel.assign(np.full(kernel.shape, 1e-3))
        zeros = [
            np.zeros(v.shape, "float32") for v in model.trainable_variables
        ]
        optimizer.apply(zeros, variables)
        assert kernels[0].numpy().any() == want
        assert kernels[1].numpy().all()


@pytest.mark.parametrize("update", ["subgradient", "proximal"])
def test_structure_lasso_makes_dead_units(update):
    sparsity = Sparsity(
        structure_lasso=0.03, structure_update=update, threshold=0.01
    )
    model = small()
    sparsity.regularize(model)
    optimizer = sparsity.wrap(sgd(), model)
    assert isinstance(optimizer, tf_ssl.GroupLassoOptimizer)
    history = fit(model, optimizer, sparsity, batches=150)
    structures = tf_ssl.find_structures(model)
    norms = [s.norms().sum() for s in structures if s.kind == "units"]
    penalty = history["group_lasso"][-1]
    assert penalty == pytest.approx(0.03 * sum(norms), rel=0.1)
    structure = structures["hidden1/units"]
    dead = structure.dead()
    assert 3 <= dead.sum() < 8
    assert history["dead_units"][-1] > 0


def test_structures_of_inputs_are_left_out():
    model = small()
    assert {s.kind for s in tf_ssl.find_structures(model)} == {"input", "units"}
    optimizer = Sparsity(structure_lasso=0.1).wrap(sgd(), model)
    assert [s.kind for s in optimizer.structures] == ["units", "units"]


def test_depth_lasso_has_a_strength_of_its_own():
    model = resnet_cifar(1, (16, 16, 3), seed=0)
    sparsity = Sparsity(structure_lasso=0.1, depth_lasso=0.25)
    optimizer = sparsity.wrap(sgd(), model)
    optimizer.build(model.trainable_variables)
    strengths = dict(
        zip(
            [s.name for s in optimizer.structures],
            optimizer.strength.numpy(),
            strict=True,
        )
    )
    blocks = {n: x for n, x in strengths.items() if n.endswith("/block")}
    assert len(blocks) == 3
    assert set(blocks.values()) == {0.25}
    others = {x for n, x in strengths.items() if n not in blocks}
    assert others == {0.1}


def test_frozen_zeros():
    sparsity = Sparsity(freeze_zeros="group")
    model = small()
    sparsity.regularize(model)
    kernel = model.get_layer("hidden1").kernel
    value = kernel.numpy()
    value[:, 2] = 0  # a neuron, and one weight of another
    value[1, 4] = 0
    kernel.assign(value)
    optimizer = sgd()
    assert sparsity.wrap(optimizer, model) is optimizer
    fit(model, optimizer, sparsity)
    assert not kernel.numpy()[:, 2].any()
    assert kernel.numpy()[1, 4] != 0


def test_tensorboard(tmp_path):
    sparsity = Sparsity(["filter:0.01"])
    model = small()
    sparsity.regularize(model)
    fit(model, sparsity.wrap(sgd(), model), sparsity, log_dir=tmp_path)
    assert any((tmp_path / "sparsity").iterdir())


def test_text():
    assert str(Sparsity(["conv*@filter:0.5", "l1:0.1"], threshold=1e-3)) == (
        "conv*@filter:0.5, l1:0.1, threshold 0.001"
    )
    sparsity = Sparsity(
        structure_lasso=0.1,
        depth_lasso=0.2,
        structure_update="proximal",
        freeze_zeros="element",
    )
    assert str(sparsity) == (
        "structures:0.1, branches:0.2, by proximal steps, zeros frozen by "
        "element"
    )


def test_model_without_branches():
    message = "Model 'mlp' has no branches that could go"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Sparsity(depth_lasso=0.1).wrap(sgd(), small())


def test_group_lasso_beside_proximal_updates():
    message = (
        "Flag --group_lasso has no zeros without a threshold, and "
        "--structure_update=proximal has none. Pass one of the two."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Sparsity(["filter:0.1"], structure_update="proximal")


def recurrent(units=6):
    """Two LSTM layers between an embedding and a softmax layer."""
    words = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(9, 5, name="table")(words)
    for i in (1, 2):
        x = keras.layers.LSTM(units, return_sequences=True, name=f"lstm{i}")(x)
    x = keras.layers.Dense(4, name="hidden")(x)
    return keras.Model(words, keras.layers.Dense(9, name="logits")(x))


def test_iss_penalizes_hidden_units_alone():
    model = recurrent()
    sparsity = Sparsity(iss_strength=0.35, loss_scale=1 / 35)
    optimizer = sparsity.wrap(sgd(), model)
    assert [s.name for s in optimizer.structures] == [
        "lstm1/units",
        "lstm2/units",
    ]
    optimizer.build(model.trainable_variables)
    np.testing.assert_allclose(optimizer.strength.numpy(), 0.01)
    assert optimizer.clip == "inside" and optimizer.double_count
    assert str(sparsity) == (
        "ISS:0.35 (0.01 of the mean over steps), threshold 0.0001"
    )


def test_iss_leaves_layers_alone():
    sparsity = Sparsity(iss_strength=0.1, iss_exclude=["lstm2*"])
    optimizer = sparsity.wrap(sgd(), recurrent())
    assert [s.name for s in optimizer.structures] == ["lstm1/units"]
    assert str(sparsity) == "ISS:0.1 without lstm2*, threshold 0.0001"


def test_clipping_sees_the_penalty():
    """The step has the length of the clip, though the loss is flat."""
    model = recurrent()
    core = keras.optimizers.SGD(1.0, global_clipnorm=1e-3)
    optimizer = Sparsity(iss_strength=100.0, threshold=0.0).wrap(core, model)
    variables = model.trainable_variables
    before = [v.numpy() for v in variables]
    optimizer.build(variables)
    optimizer.apply([np.zeros(v.shape, "float32") for v in variables])
    moved = sum(
        np.square(v.numpy() - b).sum()
        for v, b in zip(variables, before, strict=True)
    )
    assert np.sqrt(moved) == pytest.approx(1e-3, rel=1e-2)


def test_unit_counts():
    model = recurrent()
    structures = tf_ssl.find_structures(model)
    structures["lstm1/units"].zero([0, 3])
    structures["lstm2/units"].zero([5])
    chosen = [s for s in structures if s.name.startswith("lstm")]
    logs = {}
    UnitCounts(chosen).on_epoch_end(0, logs)
    assert logs == {"units_lstm1": 4, "units_lstm2": 5}


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"iss_strength": 0.1, "structure_lasso": 0.1},
            "Flag --iss_strength penalizes hidden units, as --structure_lasso "
            "does. Pass it without --structure_lasso and --depth_lasso.",
        ),
        (
            {"iss_strength": 0.1, "structure_update": "proximal"},
            "Flag --iss_strength has groups that share weights, for which "
            "there are no proximal steps. Pass it with "
            "--structure_update=subgradient.",
        ),
        (
            {"iss_exclude": ["x*"]},
            "Flag --iss_exclude says what --iss_strength leaves alone. Pass "
            "both.",
        ),
    ],
)
def test_iss_beside_others(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Sparsity(**options)


def test_model_without_recurrent_layers():
    message = "Model 'mlp' has no recurrent units that could go"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Sparsity(iss_strength=0.1).wrap(sgd(), small())

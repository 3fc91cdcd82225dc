import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_terngrad as tg
from tf_terngrad import collectives


def _model(dropout=0.5):
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(dropout, seed=1),
            keras.layers.Dense(40),
        ]
    )


def _compiled():
    model = _model()
    optimizer = tg.DistributedOptimizer(
        keras.optimizers.Adam(0.1), tg.TernGrad(error_feedback=True)
    )
    model.compile(optimizer, "mse", jit_compile=False)
    return model


def _fit(model, steps=2):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8 * steps, 4)).astype(np.float32)
    y = np.tile(x, 10) ** 5  # some gradients are clipped
    model.fit(x, y, batch_size=8, verbose=0, shuffle=False)


def _variables(model):
    optimizer = model.optimizer
    return [
        *model.variables,
        *optimizer.variables,
        *optimizer.worker_variables,
    ]


def _everything(model):
    return [keras.ops.convert_to_numpy(v).copy() for v in _variables(model)]


def _equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_restore_goes_back_to_the_last_commit():
    model = _compiled()
    state = tg.elastic.State(model, sizes=[])
    _fit(model)
    state.examples, state.epoch = 16, 3
    state.sizes.append(2)
    state.commit()
    committed = _everything(model)

    _fit(model)
    after = _everything(model)
    seed = model.layers[1].seed_generator.state
    residual = model.optimizer.feedback.residuals[0][2]
    position = {id(v): i for i, v in enumerate(_variables(model))}
    for variable in (
        *model.variables,
        seed,
        residual,
        model.optimizer.exchange_step,
    ):
        i = position[id(variable)]
        assert not np.array_equal(committed[i], after[i]), variable.path
    state.examples = 32
    state.sizes.append(3)

    state.restore()
    assert _equal(_everything(model), committed)
    assert (state.epoch, state.examples, state.sizes) == (3, 16, [2])

    # Training goes on with the same random bits.
    _fit(model)
    assert _equal(_everything(model), after)


def test_restore_without_a_commit_goes_back_to_the_start():
    model = _compiled()
    state = tg.elastic.State(model)
    start = _everything(model)
    _fit(model)
    state.restore()
    assert _equal(_everything(model), start)


def test_further_variables_are_kept():
    compression = tg.TernGrad()
    state = tg.elastic.State(_compiled(), variables=[compression.step])
    compression.step.assign(5)
    state.commit()
    compression.step.assign(9)
    state.restore()
    assert int(compression.step) == 5


def test_sync_of_one_worker_changes_nothing():
    model = _compiled()
    state = tg.elastic.State(model)
    _fit(model)
    state.epoch = 1
    state.commit()
    before = _everything(model)
    state.sync()
    assert _equal(_everything(model), before)
    assert state.epoch == 1


def test_one_that_joins_takes_over_from_the_one_with_the_most_commits(
    monkeypatch,
):
    old = tg.elastic.State(_compiled(), sizes=[])
    _fit(old.model)
    old.epoch, old.sizes = 2, [3]
    old.commit()
    monkeypatch.setattr(
        collectives, "allgather_object", lambda value, name: [value, 0, 1]
    )
    # What check_agreement gathers is another thing.
    monkeypatch.setattr(tg.elastic.state.agreement, "check_agreement", id)
    roots = []

    def broadcast(value, root, name):
        roots.append(root)
        return {k: old._saved[k] for k in value}

    monkeypatch.setattr(collectives, "broadcast_object", broadcast)
    new = tg.elastic.State(_compiled(), sizes=[])
    seed = new.model.layers[1].seed_generator.state
    seed.assign([7, 8])
    new.sync()
    assert roots == [2]
    for part in ("_shared", "_statistics"):
        assert _equal(getattr(new, part)(), getattr(old, part)())
    assert np.any(old.optimizer.feedback.residuals[0][2])
    assert not any(map(np.any, new.optimizer.worker_variables))
    assert (new.epoch, new.sizes) == (2, [3])
    # Its own dropout masks; and it goes back to what it took over.
    assert list(seed.numpy()) == [7, 8]
    _fit(new.model)
    new.restore()
    np.testing.assert_array_equal(
        new.model.trainable_variables[0], old.model.trainable_variables[0]
    )


def test_commit_leaves_training_when_the_launcher_noticed_something():
    state = tg.elastic.State(_compiled())
    state.commit()
    state.epoch = 4
    state.on_hosts_updated(0, 1)
    with pytest.raises(tg.elastic.WorkersChanged):
        state.commit()
    state.restore()
    assert state.epoch == 4  # it was committed first
    state.forget_notices()
    state.commit()


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("examples", [0, 12, 60, 61, 97])
def test_remaining_examples_are_dealt_out_once(monkeypatch, size, examples):
    state = tg.elastic.State(_compiled())
    state.examples = examples
    dataset = tf.data.Dataset.range(61)
    monkeypatch.setattr(collectives, "size", lambda: size)
    parts = []
    for rank in range(size):
        monkeypatch.setattr(collectives, "rank", lambda rank=rank: rank)
        parts.append(
            [list(b) for b in state.remaining(dataset, 4).as_numpy_iterator()]
        )
    first = min(examples, 61 - 4 * size)  # the last batch again, if need be
    steps = (61 - first) // (4 * size)
    assert all(len(part) == steps for part in parts)
    seen = sorted(x for part in parts for batch in part for x in batch)
    assert seen == list(range(first, first + steps * 4 * size))


def test_a_position_at_the_end_of_an_epoch_makes_whole_steps():
    model = _compiled()
    state = tg.elastic.State(model)
    state.examples = 24
    features = np.zeros((24, 4), np.float32)
    labels = np.zeros((24, 40), np.float32)
    dataset = tf.data.Dataset.from_tensor_slices((features, labels))
    model.fit(
        state.remaining(dataset, 8),
        verbose=0,
        callbacks=[tg.elastic.Commit(state, 8, 1)],
    )
    assert model.optimizer.iterations == model.optimizer.exchange_step == 1
    assert (state.epoch, state.examples) == (1, 0)


def test_remaining_refuses_fewer_examples_than_a_step(monkeypatch):
    state = tg.elastic.State(_compiled())
    monkeypatch.setattr(collectives, "size", lambda: 2)
    with pytest.raises(ValueError) as e:
        state.remaining(tf.data.Dataset.range(9), 5)
    assert str(e.value) == (
        "Invalid value for argument dataset. Expected at least "
        "batch_size * tg.size() == 10 examples. "
        "Received: dataset.cardinality() == 9"
    )


def test_remaining_refuses_an_unknown_number_of_examples():
    state = tg.elastic.State(_compiled())
    dataset = tf.data.Dataset.range(9).filter(lambda x: x > 2)
    with pytest.raises(ValueError) as e:
        state.remaining(dataset, 2)
    assert str(e.value) == (
        "Invalid value for argument dataset. Expected a known number of "
        "examples: tf.data.experimental.assert_cardinality tells it. "
        "Received: dataset.cardinality() == UNKNOWN"
    )


def test_an_unbuilt_model_is_refused():
    model = keras.Sequential([keras.layers.Dense(1)], name="unbuilt")
    with pytest.raises(ValueError) as e:
        tg.elastic.State(model)
    assert str(e.value) == (
        "Invalid value for argument model. Expected a built model: begin it "
        "with keras.Input, or call model.build(input_shape). Received: "
        f"model={model!r}"
    )


def test_a_model_without_an_optimizer_is_refused():
    with pytest.raises(ValueError) as e:
        tg.elastic.State(_model())
    assert str(e.value) == (
        "Invalid value for argument optimizer. Expected a Keras optimizer, or "
        "a compiled model. Received: optimizer=None"
    )


@pytest.mark.parametrize("name", ["commit", "remaining"])
def test_names_of_its_own_are_refused(name):
    with pytest.raises(ValueError) as e:
        tg.elastic.State(_compiled(), **{name: 1})
    assert str(e.value) == (
        f"Invalid name of a value. Expected another one than {name!r}, which "
        "State uses itself."
    )

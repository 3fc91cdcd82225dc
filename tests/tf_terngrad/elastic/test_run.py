import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_terngrad as tg
from tf_terngrad import collectives, numbering


def _state(**values):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    optimizer = tg.DistributedOptimizer(keras.optimizers.SGD(0.1), tg.FP16())
    model.compile(optimizer, "mse", jit_compile=False)
    return tg.elastic.State(model, **values)


def _lost(text="{{node HorovodAlltoall_tg_0}} Connection closed by peer"):
    return tf.errors.UnknownError(None, None, text)


@pytest.fixture
def rejoined(monkeypatch):
    """How often workers joined again, under an elastic launcher."""
    times = []
    monkeypatch.setattr(collectives, "is_elastic", lambda: True)
    monkeypatch.setattr(collectives, "rejoin", lambda: times.append(1))
    return times


@pytest.fixture(autouse=True)
def _no_notices(monkeypatch):
    monkeypatch.setattr(
        collectives, "notices", lambda listener: contextlib.nullcontext()
    )


def test_goes_on_from_the_last_commit_after_a_loss(rejoined):
    state = _state(log=[])
    made, functions = [], []

    @tg.elastic.run
    def train(state, end):
        made.append(tg.TernGrad().number)
        functions.append(state.model.train_function)
        while state.epoch < end:
            x = np.ones((4, 2), np.float32)
            state.model.fit(x, x[:, :1], verbose=0)
            state.epoch += 1
            state.log.append(state.epoch)
            if len(made) == 1 and state.epoch == 3:
                raise _lost()
            if state.epoch % 2 == 0:
                state.commit()
        return "trained"

    assert train(state, end=5) == "trained"
    assert len(rejoined) == 1
    assert state.log == [1, 2, 3, 4, 5]  # 3 was done twice, and counts once
    assert int(state.model.optimizer.exchange_step) == 5
    assert made[0] == made[1]  # numbers begin anew
    assert functions == [None, None]  # and so does tracing


def test_goes_on_where_it_is_when_workers_join(rejoined):
    state = _state()
    calls = []

    @tg.elastic.run
    def train(state):
        calls.append(state.epoch)
        while state.epoch < 4:
            state.epoch += 1
            if state.epoch == 2:
                state.on_hosts_updated(0, 2)
            state.commit()

    train(state)
    assert calls == [0, 2]
    assert len(rejoined) == 1


def test_a_loss_while_synchronizing_is_survived(rejoined, monkeypatch):
    state = _state()
    failures = [_lost("HorovodBroadcast: Horovod has been shut down.")]

    def allgather(value, name):
        if failures and name == "elastic.commits":
            raise failures.pop()
        return [value]

    monkeypatch.setattr(collectives, "allgather_object", allgather)
    assert tg.elastic.run(lambda state: "trained")(state) == "trained"
    assert len(rejoined) == 1


def test_a_loop_of_its_own(rejoined):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD(0.1)
    compression = tg.TernGrad()
    variables = [compression.step]
    state = tg.elastic.State(model, optimizer, variables, step=0)

    @tg.elastic.run
    def train(state):
        @tf.function
        def train_step(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(model(x) ** 2)
            tape = tg.DistributedGradientTape(tape, compression)
            weights = [v.value for v in model.trainable_variables]
            gradients = tape.gradient(loss, weights)
            optimizer.apply(gradients, model.trainable_variables)

        while state.step < 4:
            train_step(tf.ones((3, 2)))
            state.step += 1
            if state.step == 3 and not rejoined:
                raise _lost()
            state.commit()

    train(state)
    assert len(rejoined) == 1
    assert int(optimizer.iterations) == int(compression.step) == 4


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.UnknownError(None, None, "cuDNN failed to initialize"),
        tf.errors.FailedPreconditionError(None, None, "Horovod: mismatched"),
        ValueError("Horovod"),
    ],
)
def test_other_errors_are_raised(rejoined, error):
    def train(state):
        raise error

    with pytest.raises(type(error)) as e:
        tg.elastic.run(train)(_state())
    assert e.value is error
    assert not rejoined


def test_without_an_elastic_launcher_a_loss_is_raised():
    def train(state):
        raise _lost()

    with pytest.raises(tf.errors.UnknownError):
        tg.elastic.run(train)(_state())


def test_a_loss_that_caused_another_error_counts():
    error = RuntimeError("Worker 1 cannot write checkpoint")
    error.__cause__ = _lost()
    assert collectives.says_workers_lost(error)
    assert not collectives.says_workers_lost(RuntimeError("Horovod"))


def test_another_state_is_refused():
    with pytest.raises(TypeError) as e:
        tg.elastic.run(print)(3)
    assert str(e.value) == (
        "Invalid type for argument state. Expected tg.elastic.State. "
        "Received: state=3"
    )


def test_numbers_go_back():
    before = numbering.mark()
    first = tg.TernGrad().number
    assert tg.TernGrad().number == first + 1
    numbering.go_back(before)
    assert tg.TernGrad().number == first


@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_commit_counts_examples(monkeypatch, steps_per_execution):
    state = _state()
    model = state.model
    model.compile(
        model.optimizer,
        "mse",
        jit_compile=False,
        steps_per_execution=steps_per_execution,
    )
    committed = []
    monkeypatch.setattr(
        state, "commit", lambda: committed.append((state.epoch, state.examples))
    )
    x = np.ones((36, 2), np.float32)
    model.fit(
        x,
        x[:, :1],
        batch_size=4,
        epochs=2,
        verbose=0,
        callbacks=[tg.elastic.Commit(state, 4, every_n_steps=3)],
    )
    epoch = [12, 24, 36]
    assert committed == (
        [(0, n) for n in epoch] + [(1, 0)] + [(1, n) for n in epoch] + [(2, 0)]
    )


def test_commit_refuses_no_steps():
    with pytest.raises(ValueError) as e:
        tg.elastic.Commit(_state(), 4, every_n_steps=0)
    assert "every_n_steps=0" in str(e.value)

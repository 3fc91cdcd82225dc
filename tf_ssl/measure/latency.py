"""Wall-clock time of inference: median and spread, models in turn."""

from __future__ import annotations

import dataclasses
import gc
import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from tf_ssl import checks
from tf_ssl.graph.inputs import check_model, inputs_for
from tf_ssl.graph.layer_calls import LayerCall


@dataclasses.dataclass(frozen=True)
class Latency:
    """Times of one function.

    Attributes:
        median_ms: Milliseconds of a call.
        spread_ms: 75th less 25th percentile.
        num_runs: Calls that were timed.
    """

    median_ms: float
    spread_ms: float
    num_runs: int

    def __str__(self):
        return f"{self.median_ms:.3f} ± {self.spread_ms:.3f} ms"


def measure_latency(
    models: keras.Model | Mapping[str, keras.Model],
    *,
    batch_sizes: Sequence[int] = (1, 32),
    sample=None,
    seconds: float = 2.0,
    jit_compile: bool = False,
) -> dict:
    """Times the inference of models, compiled, in turn in one run.

    In every round each model runs once, in an order drawn anew, so that a
    change of the machine's speed meets all of them. Warm-up runs come first.
    The number of threads is TensorFlow's, see `tf_ssl.machine`.

    Args:
        models: Built models that take the same inputs, by name; or one model.
        batch_sizes: Examples a call, each measured by itself.
        sample: As for `tf_ssl.multiply_adds`; its examples are repeated or cut
            to the batch size.
        seconds: Time for the rounds of a batch size; at least 5 rounds are
            run.
        jit_compile: Whether XLA compiles the models.

    Returns:
        Model's name -> batch size -> `Latency`; for one model: batch size ->
        `Latency`.

    Raises:
        TypeError: No Keras model.
        ValueError: A batch size that is no integer >= 1, a negative time, or
            what `tf_ssl.multiply_adds` refuses.

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> measure_latency(model, batch_sizes=(2,), seconds=0.01)
    {2: Latency(median_ms=..., spread_ms=..., num_runs=...)}
    """
    check_times(batch_sizes, seconds)
    alone = not isinstance(models, Mapping)
    named = {"": models} if alone else dict(models)
    for model in named.values():
        check_model(model)
    found: dict = {name: {} for name in named}
    for batch_size in batch_sizes:
        functions = {
            name: inference(
                model, inputs_for(model, batch_size, sample), jit_compile
            )
            for name, model in named.items()
        }
        for name, latency in in_turn(functions, seconds).items():
            found[name][batch_size] = latency
    return found[""] if alone else found


def check_times(batch_sizes, seconds) -> None:
    """Raises ValueError unless these are batch sizes and a time."""
    sizes = list(batch_sizes) if isinstance(batch_sizes, Sequence) else []
    if not sizes or not all(type(n) is int and n >= 1 for n in sizes):
        raise ValueError(
            "Invalid value for argument batch_sizes. Expected a sequence of "
            f"integers >= 1. Received: batch_sizes={batch_sizes!r}"
        )
    checks.not_negative("seconds", seconds)


def in_turn(
    functions: Mapping[Hashable, Callable[[], object]],
    seconds: float = 2.0,
    min_rounds: int = 5,
    warm_up: int = 2,
) -> dict[Hashable, Latency]:
    """Times functions in rounds, each once a round, in random order.

    Args:
        functions: By any key. TensorFlow's work on GPUs is waited for.
        seconds: Rounds begin while less time than this has passed.
        min_rounds: But at least so many.
        warm_up: Rounds before those, not timed.

    Returns:
        Key -> `Latency`.
    """
    wait = (
        tf.test.experimental.sync_devices
        if tf.config.list_logical_devices("GPU")
        else lambda: None
    )
    order = list(functions)
    shuffle = random.Random(0).shuffle
    times: dict = {key: [] for key in order}
    for _ in range(warm_up):
        for function in functions.values():
            function()
    wait()
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        rounds = 0
        while rounds < min_rounds or time.perf_counter() - start < seconds:
            shuffle(order)
            for key in order:
                function = functions[key]
                begin = time.perf_counter()
                function()
                wait()
                times[key].append(1e3 * (time.perf_counter() - begin))
            rounds += 1
    finally:
        if collects:
            gc.enable()
    return {key: summary(values) for key, values in times.items()}


def summary(times_ms: Sequence[float]) -> Latency:
    """Median and spread.

    >>> print(summary([1.0, 9.0, 2.0, 3.0, 4.0]))
    3.000 ± 2.000 ms
    """
    low, median, high = np.percentile(times_ms, (25, 50, 75))
    return Latency(float(median), float(high - low), len(times_ms))


def inference(model, inputs, jit_compile: bool = False) -> Callable[[], object]:
    """The compiled inference of a model on these inputs.

    Returns:
        Function without arguments; it returns the flat list of outputs.
    """
    return _compiled(lambda x: model(x, training=False), (inputs,), jit_compile)


def layer_alone(calls: Sequence[LayerCall], noise: dict | None = None):
    """The compiled calls of one layer, on noise of the shapes that it sees.

    Its time holds the start of a compiled function. In the model, layers are
    fused and run at the same time: the sum over layers differs from the time
    of the model.

    Args:
        calls: All `LayerCall`s of the layer in one inference.
        noise: Dict that keeps the noise for other layers of the same sizes.

    Returns:
        Function without arguments.
    """
    noise = {} if noise is None else noise

    def fill(spec):
        if not isinstance(spec, tf.TypeSpec):
            return spec
        key = (tuple(spec.shape), spec.dtype)
        if key not in noise:
            noise[key] = _draw(spec)
        return noise[key]

    arguments = tuple(
        keras.tree.map_structure(fill, (call.args, call.kwargs))
        for call in calls
    )

    def run(*arguments):
        return [
            call.layer(*args, **kwargs)
            for call, (args, kwargs) in zip(calls, arguments, strict=True)
        ]

    return _compiled(run, arguments)


def _draw(spec):
    """Noise; zeros for integers, which every embedding has; true for masks."""
    if spec.dtype.is_floating:
        noise = tf.random.stateless_normal(spec.shape, (0, 1))
        return tf.cast(noise, spec.dtype)
    return tf.cast(tf.fill(spec.shape, spec.dtype == tf.bool), spec.dtype)


def _compiled(function, args: tuple, jit_compile=False):
    """A function without arguments; in its graph the tensors are inputs."""
    leaves = [
        tf.convert_to_tensor(x) if isinstance(x, np.ndarray) else x
        for x in keras.tree.flatten(args)
    ]
    tensors = [x for x in leaves if tf.is_tensor(x)]

    def flat(*symbols):
        symbols = iter(symbols)
        filled = [next(symbols) if tf.is_tensor(x) else x for x in leaves]
        # Losses and statistics that layers write stay out of the model.
        with keras.StatelessScope():
            outputs = function(*keras.tree.pack_sequence_as(args, filled))
        return [x for x in keras.tree.flatten(outputs) if tf.is_tensor(x)]

    concrete = tf.function(
        flat, autograph=False, jit_compile=jit_compile
    ).get_concrete_function(*tensors)
    return lambda: concrete(*tensors)


def nothing() -> Callable[[], object]:
    """A compiled function that does nothing: the time of a call."""
    return _compiled(lambda x: x, (tf.zeros(()),))

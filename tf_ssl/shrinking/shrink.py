"""A smaller model that computes what the model with its zeros does."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from tf_ssl import checks
from tf_ssl.graph.difference import relative_difference
from tf_ssl.graph.sample import random_inputs
from tf_ssl.shrinking.plan import make_plan
from tf_ssl.shrinking.rebuild import Rebuild
from tf_ssl.structures.analysis import Weights, analyse, trace
from tf_ssl.structures.find_structures import roots_of_structures, zero_small


@dataclasses.dataclass(eq=False)
class ShrinkReport:
    """What `shrink` did.

    Attributes:
        units: Name of a structure -> (units before, units after).
        kept: (name, units, reason): dead units that stay.
        skipped: (name, reason): what could not be followed or must stay.
        dropped: Names of sums that lost their constant inputs, such as
            residual branches.
        folded: Names of layers that took up constants of removed units.
        parameters: (before, after).
        difference: Largest difference of an output between the model with its
            zeros and the smaller one, max|a - b| / max|a|; None if only
            planned.
        optimizer: The optimizer for the smaller model, if one was given.
    """

    units: dict
    kept: list
    skipped: list
    dropped: list
    folded: list
    parameters: tuple
    difference: float | None = None
    optimizer: keras.optimizers.Optimizer | None = None

    def __str__(self):
        lines = [
            f"{name}: {before} -> {after} units"
            for name, (before, after) in self.units.items()
        ]
        lines += [
            f"{name}: {count} dead units stay: {reason}"
            for name, count, reason in self.kept
        ]
        lines += [
            f"{name}: left whole: {reason}" for name, reason in self.skipped
        ]
        lines += [f"{name}: branch removed" for name in self.dropped]
        if self.folded:
            lines.append(f"constants folded into: {', '.join(self.folded)}")
        before, after = self.parameters
        lines.append(f"parameters: {before:,} -> {after:,}")
        if self.difference is not None:
            lines.append(
                f"largest difference of outputs: {self.difference:.1e}"
            )
        return "\n".join(lines)


def shrink(
    model,
    threshold: float = 0.0,
    *,
    sample=None,
    allow_inexact: bool = False,
    gather_inputs: bool = False,
    round_to: int = 1,
    min_units: int = 1,
    plan_only: bool = False,
    optimizer=None,
    tolerance: float = 1e-5,
):
    """A smaller model without the units that the model does not need.

    A unit goes if all that reads it is zero, or if it is constant, whatever
    the input; the constant is folded into what reads it. Residual branches that
    are constant go as wholes. The argument is not changed. Folded constants are
    exact in inference; where Dropout lies between, not in training.

    >>> import tf_ssl
    >>> import keras
    >>> model = keras.Sequential([keras.Input([4]), keras.layers.Dense(3),
    ...                           keras.layers.Dense(2)])
    >>> tf_ssl.find_structures(model)[1].zero([0, 2])
    >>> small = tf_ssl.shrink(model)
    >>> small.layers[0].units
    1

    Args:
        model: Built Functional or Sequential model.
        threshold: Weights of a unit whose Euclidean norm, variable by variable,
            is at most this count as zero.
        sample: Inputs to compare the models on; None: random ones.
        allow_inexact: Also removes units whose constant meets padding, where
            the result near borders is not exact.
        gather_inputs: Also removes features of the inputs that nothing reads:
            the model picks the others itself.
        round_to: Numbers of units become multiples of this, >= 1.
        min_units: So many units of a structure stay at least, >= 1.
        plan_only: Nothing is built; the report is returned.
        optimizer: Built for `model`: a copy for the smaller model, with what
            remains of its state, is in the report.
        tolerance: Largest difference of outputs, max|a - b| / max|a|.

    Returns:
        A model, Sequential if the argument is, with `.shrink_report`, a
        `ShrinkReport`.

    Raises:
        ValueError: An argument is invalid; weights are NaN or infinite; the
            model is not built, or is a subclass with Python code.
        RuntimeError: The smaller model computes something else.
    """
    _check(threshold, round_to, min_units)
    found = trace(model)
    read = Weights()
    for variable in model.variables:
        value = read(variable)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ValueError(
                "Invalid value for argument model. Expected finite weights. "
                f"Received: {variable.path} has NaN or infinite ones"
            )
    structures, roots_of = roots_of_structures(found)
    zero_small(found, read, threshold)
    findings = analyse(found, read, gather_inputs, exact=not allow_inexact)
    norms = {s.name: s.norms() for s in structures}
    plan = make_plan(
        found, findings, structures, roots_of, norms, min_units, round_to
    )
    if not allow_inexact:
        plan.restored += _needs_padding(
            found, read, findings, structures, roots_of, gather_inputs
        )
    rebuild = Rebuild(found, read, findings, plan, gather_inputs)
    if plan_only:
        after = sum(
            rebuild.slice(v, read(v)).size
            for v in model.variables
            if _counts(v)
        )
    else:
        small = rebuild.model()
        after = small.count_params()
    report = ShrinkReport(
        plan.sizes,
        plan.restored,
        structures.skipped,
        rebuild.dropped,
        rebuild.folded,
        (model.count_params(), after),
    )
    if plan_only:
        return report
    report.difference = _difference(model, read, small, sample)
    if not report.difference <= tolerance and not allow_inexact:
        raise RuntimeError(
            f"The shrunk model differs by {report.difference:.1e} from the "
            f"model with its zeros, more than tolerance={tolerance:.1e}. "
            "Weights of very different sizes can do that; else please report "
            f"it. What was done:\n{report}"
        )
    if optimizer is not None:
        report.optimizer = _optimizer(optimizer, small, rebuild)
    small.shrink_report = report
    return small


def _check(threshold, round_to, min_units):
    checks.not_negative("threshold", threshold)
    checks.integer("round_to", round_to, 1)
    checks.integer("min_units", min_units, 1)


def _counts(variable):
    return "seed_generator" not in variable.path


def _needs_padding(found, read, findings, structures, roots_of, with_inputs):
    """Units that are constant but for padding: they stay."""
    inexact = analyse(found, read, with_inputs, exact=False)
    kept = []
    for structure in structures:
        roots = roots_of[structure.name]
        count = int((inexact.removable & ~findings.removable)[roots].sum())
        if count:
            kept.append(
                (
                    structure.name,
                    count,
                    "their constants are not 0 and meet padding; "
                    "allow_inexact=True removes them",
                )
            )
    return kept


def _difference(model, read, small, sample):
    """Largest difference of outputs, max|a - b| / max|a|."""
    if sample is None:
        sample = random_inputs(model)
    zeroed = model
    if any(read.is_changed(v) for v in model.variables):
        zeroed = keras.models.clone_model(model)
        for old, new in zip(model.variables, zeroed.variables, strict=True):
            new.assign(read(old))
    largest = 0.0
    for a, b in zip(
        keras.tree.flatten(zeroed(sample, training=False)),
        keras.tree.flatten(small(sample, training=False)),
        strict=True,
    ):
        largest = max(largest, relative_difference(a, b))
    return largest


def _optimizer(optimizer, small, rebuild):
    """A copy for the smaller model, with the slots of what stays."""
    new = type(optimizer).from_config(optimizer.get_config())
    new.build(small.trainable_variables)
    old_variables = list(optimizer._trainable_variables)
    old_of = {id(b): a for a, b in rebuild.pairs}
    for name, slots in vars(optimizer).items():
        copies = getattr(new, name, None)
        if (
            name == "_trainable_variables"
            or not isinstance(slots, list)
            or not isinstance(copies, list)
            or len(slots) != len(old_variables)
        ):
            continue
        slot_of = {id(v): s for v, s in zip(old_variables, slots, strict=True)}
        for variable, copy in zip(
            new._trainable_variables, copies, strict=True
        ):
            old = old_of.get(id(variable))
            slot = slot_of.get(id(old))
            if slot is not None and copy is not None:
                value = keras.ops.convert_to_numpy(slot)
                copy.assign(rebuild.slice(old, value))
    new.iterations.assign(optimizer.iterations)
    if not callable(optimizer._learning_rate):
        new.learning_rate = optimizer.learning_rate
    return new

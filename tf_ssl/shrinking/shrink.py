"""A smaller model that computes what the model with its zeros does."""

from __future__ import annotations

import numpy as np

from tf_ssl import checks
from tf_ssl.graph import check
from tf_ssl.graph.sample import random_inputs
from tf_ssl.shrinking.optimizer_state import optimizer_for
from tf_ssl.shrinking.plan import make_plan
from tf_ssl.shrinking.rebuild import Rebuild
from tf_ssl.shrinking.report import ShrinkReport
from tf_ssl.structures.analysis import Weights, analyse, trace
from tf_ssl.structures.find_structures import roots_of_structures, zero_small


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
    tolerance: float | None = None,
    length: int | None = None,
):
    """A smaller model without the units that the model does not need.

    A unit goes if all that reads it is zero, or if it is constant, whatever
    the input; the constant is folded into what reads it. Residual branches that
    are constant go as wholes. The argument is not changed. Folded constants are
    exact in inference; where Dropout lies between, not in training.

    Layers that stay as they are are copied with all that they hold; in place of
    composite layers (of another library, or your own) stand the layers inside,
    so that the smaller model is a plain Functional one. It is compared with the
    model itself before you get it.

    >>> import tf_ssl
    >>> import keras
    >>> model = keras.Sequential([keras.Input([4]), keras.layers.Dense(3),
    ...                           keras.layers.Dense(2)])
    >>> tf_ssl.find_structures(model)[1].zero([0, 2])
    >>> small = tf_ssl.shrink(model)
    >>> small.layers[0].units
    1

    Args:
        model: Built `keras.Model`.
        threshold: Weights of a unit whose Euclidean norm, variable by variable,
            is at most this count as zero.
        sample: Inputs to compare the models on; None: random ones.
        allow_inexact: Also removes units whose constant meets padding, where
            the result near borders is not exact, and dead units that
            normalizations over units or a softmax mix: the report says which.
        gather_inputs: Also removes features of the inputs that nothing reads:
            the model picks the others itself.
        round_to: Numbers of units become multiples of this, >= 1.
        min_units: So many units of a structure stay at least, >= 1.
        plan_only: Nothing is built; the report is returned.
        optimizer: Built for `model`: a copy for the smaller model, with what
            remains of its state, is in the report.
        tolerance: Largest difference of outputs, max|a - b| / max|a|; None:
            what rounding explains in the model's compute type.
        length: Integer: the size of what the model's inputs leave open. The
            smaller model takes inputs of that size only. For composite layers
            that ask for the size of their input.

    Returns:
        A model with `.shrink_report`, a `ShrinkReport`; Sequential if the
        argument is and holds no composite layer.

    Raises:
        ValueError: An argument is invalid; weights are NaN or infinite, or
            outputs on random input: pass `sample`; the model is not built, or
            is a subclass with Python code that does not open.
        RuntimeError: The smaller model computes something else.
    """
    _check(threshold, round_to, min_units, length)
    found = trace(model, length, exact=not allow_inexact)
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
    inexact = analyse(found, read, gather_inputs, exact=False)
    exact = analyse(found, read, gather_inputs)
    findings = inexact if allow_inexact else exact
    norms = {s.name: s.norms() for s in structures}
    plan = make_plan(
        found, findings, structures, roots_of, norms, min_units, round_to
    )
    padded = _needs_padding(exact, inexact, structures, roots_of)
    if not allow_inexact:
        plan.restored += padded
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
        opened=rebuild.opened,
        training_lost=rebuild.training_lost,
    )
    if plan_only:
        return report
    if allow_inexact:
        report.inexact = [*_inexact(found, plan), *(n for n, *_ in padded)]
    report.tolerance = (
        check.tolerance_of(model) if tolerance is None else tolerance
    )
    if sample is None:
        sample = random_inputs(model, length=length)
    differences = check.differences(model, read.changed, small, sample)
    report.difference = max(differences)
    if report.inexact:
        # What was to be exact is checked by itself, without the rest.
        shrink(
            model,
            threshold,
            sample=sample,
            gather_inputs=gather_inputs,
            tolerance=tolerance,
            length=length,
        )
    elif not report.difference <= report.tolerance:
        raise RuntimeError(
            f"The shrunk model differs by {report.difference:.1e} from the "
            "model with its zeros, more than "
            f"tolerance={report.tolerance:.1e}. "
            "Weights of very different sizes can do that; else please report "
            f"it. What was done:\n{report}"
        )
    if optimizer is not None:
        report.optimizer = optimizer_for(
            optimizer, small, rebuild.pairs, rebuild.slice
        )
    successor = {id(old): new for old, new in rebuild.pairs}
    report.variables = [successor.get(id(v)) for v in model.variables]
    small.shrink_report = report
    return small


def _check(threshold, round_to, min_units, length):
    if length is not None:
        checks.integer("length", length, 1)
    checks.not_negative("threshold", threshold)
    checks.integer("round_to", round_to, 1)
    checks.integer("min_units", min_units, 1)


def _counts(variable):
    return "seed_generator" not in variable.path


def _needs_padding(exact, inexact, structures, roots_of):
    """Units that are constant but for padding: they stay if exact."""
    kept = []
    for structure in structures:
        roots = roots_of[structure.name]
        count = int((inexact.removable & ~exact.removable)[roots].sum())
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


def _inexact(found, plan):
    """(layer, reason) of what changed because units that it mixes went."""
    gone = ~plan.keeps
    reasons = found.tracer.elements.inexact
    roots = found.tracer.elements.roots(np.array(list(reasons), int))
    return sorted(
        {
            reason
            for root, reason in zip(roots, reasons.values(), strict=True)
            if gone[root]
        }
    )

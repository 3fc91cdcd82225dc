"""Backbones of KerasHub lose their dead units, whatever the family."""

import dataclasses

import keras
import numpy as np
import pytest

from tests.tf_ssl.hub import backbones, planted
from tf_ssl.graph.inputs import inputs_for

if not backbones.has_keras_hub():
    pytest.skip("keras_hub is not installed", allow_module_level=True)

FAMILIES = backbones.families()
LEAST_SHARE = 0.95
# These run with the fast tests as well.
_QUICK = ("bert", "vit", "resnet")


@dataclasses.dataclass(frozen=True)
class Gap:
    """What does not hold for a family yet.

    Attributes:
        units: Found, of those that it has.
        share: Removed, of those that were planted.
        fails: The steps that do: "shrink", "load", "litert".
        reason: Why.
    """

    units: int
    share: float
    fails: frozenset
    reason: str


def _gap(units, share, fails, reason):
    return Gap(units, share, frozenset(fails.split()), reason)


# Family -> gap. A gap that has been closed, or is another one now, fails too.
EXPECTED: dict[str, Gap] = {}


def _slow_but(names):
    return [
        pytest.param(
            name, marks=() if name in names else (pytest.mark.slow,), id=name
        )
        for name in FAMILIES
    ]


def _assert_as_expected(report, is_whole):
    """What holds is what EXPECTED does not name, and nothing else."""
    steps = {"shrink", "load", "litert"} if is_whole else {"shrink"}
    failed = report.failures() & steps
    units = FAMILIES[report.family].units
    gap = EXPECTED.get(report.family)
    seen = f"units={report.units} of {units}, share={report.share:.3f}, " + (
        f"failed={sorted(failed)}; {report.reasons()}"
    )
    if gap is None:
        assert not failed, seen
        assert report.units >= units, seen
        assert report.share >= LEAST_SHARE, seen
        # Else the difference would say nothing.
        assert report.effect > 1e-2
        return
    assert failed == gap.fails & steps, f"EXPECTED is out of date: {seen}"
    assert report.units == gap.units, f"EXPECTED is out of date: {seen}"
    assert report.share == pytest.approx(gap.share, abs=0.05), (
        f"EXPECTED is out of date: {seen}"
    )


def test_expected_names_families():
    assert not EXPECTED.keys() - {
        entry.name for _, entry in backbones._FAMILIES
    }


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_shrinks_loads_and_converts(family):
    report = planted.report(FAMILIES[family], "all")
    _assert_as_expected(report, is_whole=True)


@pytest.mark.parametrize("family", _slow_but(_QUICK))
@pytest.mark.parametrize("mode", ["out", "in"])
def test_shrinks_what_half_of_the_weights_leave_dead(family, mode):
    report = planted.report(FAMILIES[family], mode, load=False, litert=False)
    _assert_as_expected(report, is_whole=False)


@pytest.mark.parametrize("family", _slow_but(_QUICK))
def test_constants_are_exact(family):
    """Some stay, where they meet padding; what goes leaves no difference."""
    report = planted.report(
        FAMILIES[family], "constant", load=False, litert=False
    )
    fails = EXPECTED[family].fails if family in EXPECTED else ()
    assert report.is_exact == ("shrink" not in fails), report.reasons()


def test_a_wrong_model_is_seen(monkeypatch):
    """What is compared is alive: one weight more makes a difference."""
    shrink = planted.tf_ssl.shrink

    def wrong(*args, **kwargs):
        small = shrink(*args, **kwargs)
        kernel = next(v for v in small.variables if len(v.shape) == 4)
        kernel.assign(kernel * 1.01)
        return small

    monkeypatch.setattr(planted.tf_ssl, "shrink", wrong)
    report = planted.report(FAMILIES["vgg"], load=False, litert=False)
    assert report.difference > 1e-3
    assert "shrink" in report.failures()


def test_a_model_of_keras_hub_does_not_load_elsewhere(tmp_path):
    model = FAMILIES["vit"].build()
    inputs = backbones.images(model, 2)
    with pytest.raises(RuntimeError, match="keras_hub"):
        planted.load_elsewhere(
            model, inputs, planted.outputs(model, inputs), tmp_path
        )


@pytest.mark.parametrize("family", _slow_but(_QUICK))
def test_inputs_without_a_sample(family):
    entry = FAMILIES[family]
    model = entry.build()
    inputs = inputs_for(model, 3, unknown=entry.length)
    if isinstance(inputs, dict):
        for name, value in inputs.items():
            if name.endswith("token_ids"):
                # Enough of them that a limit too low would show.
                assert 30 < value.max() < backbones.VOCABULARY
            elif name.endswith("mask"):
                assert set(np.unique(value)) == {0, 1}
                assert (value[..., 0] == 1).all()
    for output in keras.tree.flatten(model(inputs)):
        assert np.isfinite(output).all()

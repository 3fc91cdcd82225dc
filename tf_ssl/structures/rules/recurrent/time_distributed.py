"""A layer at each step."""

from __future__ import annotations

import dataclasses

from keras import layers

from tf_ssl.structures.rules.base import Rule
from tf_ssl.structures.rules.recurrent.bidirectional import Bidirectional
from tf_ssl.structures.rules.table import rule_of, structure_rule


@structure_rule(layers.TimeDistributed)
class TimeDistributed(Rule):
    """A layer at each step: that layer's rule, without the axis of time."""

    def __init__(self, call):
        super().__init__(call)
        self.inner = rule_of(
            dataclasses.replace(
                call,
                op=call.op.layer,
                args=call.args[:1],
                kwargs={},
                inputs=[_without_time(t) for t in call.inputs[:1]],
                outputs=[_without_time(t) for t in call.outputs],
            )
        )
        self.adds_bias = self.inner.adds_bias
        for name in (
            "constants",
            "needs",
            "inner_dead",
            "read_axes",
            "foldable",
            "folds",
            "values",
            "crop",
            "bias_units",
            "shifts",
        ):
            setattr(self, name, getattr(self.inner, name))

    @property
    def exact(self):
        return self.inner.exact

    @exact.setter
    def exact(self, value):
        self.inner.exact = value

    def trace(self, tracer, inputs):
        time = 1 - len(self.call.input_shapes[0])
        axes = dict(inputs[0])
        if time in axes:
            tracer.elements.fix(axes.pop(time), f"{self.name} steps over them")
        self.inner.call.args = tuple(self.inner.call.inputs)
        self.inputs = [axes]
        self.outputs = self.inner.trace(tracer, [axes])
        self.inputs = self.inner.inputs
        if isinstance(self.inner, Bidirectional) and self.inner.usable:
            # One layer must stand in for it.
            tracer.elements.union(*(part.made for part in self.inner.parts))
        return self.outputs

    def successor(self, keep):
        inner = self.inner.successor(keep)
        if inner is None:
            return None
        return layers.TimeDistributed(inner, name=self.op.name)

    def config(self, keep):
        return self._around(self.inner.config(keep))

    def with_bias(self, config):
        inner = self.inner.with_bias(config["layer"]["config"])
        return self._around(inner)

    def _around(self, changes):
        config = dict(self.op.get_config()["layer"])
        config.pop("build_config", None)  # of the size before
        return {"layer": {**config, "config": {**config["config"], **changes}}}


def _without_time(tensor):
    return dataclasses.replace(
        tensor, shape=(tensor.shape[0], *tensor.shape[2:])
    )

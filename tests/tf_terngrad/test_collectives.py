"""Without Horovod, without a launcher."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import tf_terngrad as tg
from tf_terngrad import collectives

_BLOCK_HOROVOD = """
import importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "horovod":
            raise ImportError("No module named 'horovod'")

sys.meta_path.insert(0, Block())
"""


def _python(code, **environment):
    env = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment
    return subprocess.run(
        [sys.executable, "-c", _BLOCK_HOROVOD + code],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=os.path.dirname(os.path.dirname(collectives.__file__)),
    )


def test_without_horovod_and_without_custom_ops():
    result = _python(
        """
import tensorflow as tf, tf_terngrad as tg, custom_ops
assert (tg.rank(), tg.size(), tg.local_rank(), tg.local_size()) == (0, 1, 0, 1)
tg.init()
g = [tf.fill([40], -0.5), tf.ones([3])]
averages = tg.exchange(g, [tf.Variable(x) for x in g], tg.TernGrad(None))
assert averages[0].numpy().tolist() == [-0.5] * 40
assert averages[1].numpy().tolist() == [1.0] * 3
assert custom_ops.status()["implementation"] == "fallback"
assert "horovod" not in sys.modules
print("fine")
""",
        CUSTOM_OPS_FALLBACK="1",
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "fine\n"


@pytest.mark.parametrize(
    "variable", ["HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"]
)
def test_launched_without_horovod(variable, monkeypatch):
    monkeypatch.setenv(variable, "0")
    for name in [n for n in sys.modules if n.split(".")[0] == "horovod"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "horovod.tensorflow", None)
    monkeypatch.setitem(sys.modules, "horovod", None)
    with pytest.raises(ImportError) as error:
        tg.size()
    assert str(error.value).startswith(
        "This process was started as one of several workers, but Horovod "
        "cannot be imported. `make train` and `make test` build it; see "
        "README. ("
    )


def test_one_worker_gets_back_what_it_sends():
    workers = collectives.Workers()
    assert (workers.rank, workers.size) == (0, 1)
    x = tf.constant([1.0, 2.0])
    for result in (
        workers.max(x, "x"),
        workers.sum(x, "x"),
        workers.gather(x, "x"),
        workers.sum_all([x], "x")[0],
    ):
        np.testing.assert_array_equal(result, x)
    assert workers.sum_all([], "x") == []
    assert int(workers.zero()) == 0
    assert collectives.allgather_object({"a": 1}) == [{"a": 1}]
    assert collectives.broadcast_object("a") == "a"
    collectives.barrier()
    variable = tf.Variable(3.0)
    collectives.broadcast_variables([variable])
    assert float(variable) == 3.0

"""Formulas against values worked out by hand; the program's output."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

import tf_terngrad as tg
from tf_terngrad.perf_model import __main__ as program
from tf_terngrad.perf_model import model, plot, profiles, validate

_ROOT = pathlib.Path(__file__).parents[2]
_NET = model.Channel(0.01, 1000.0)
_PCI = model.Channel(0.001, 10000.0)


def _run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tf_terngrad.perf_model", *arguments],
        cwd=_ROOT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def _payloads():
    spec = importlib.util.spec_from_file_location(
        "payloads", _ROOT / "benchmarks" / "payloads.py"
    )
    payloads = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(payloads)
    return payloads


# Parameters as published with the networks: BVLC's AlexNet and GoogLeNet,
# VGG-A (VGG-11) and ResNet-50 of torchvision.
@pytest.mark.parametrize(
    "name, elements",
    [
        ("alexnet", 60_965_224),
        ("googlenet", 6_998_552),
        ("vgg_a", 132_863_336),
        ("resnet50", 25_557_032),
    ],
)
def test_elements(name, elements):
    payloads = _payloads()
    assert profiles.MODELS[name].elements == elements
    assert payloads.num_elements(name) == elements
    assert profiles.MODELS[name].num_tensors == len(payloads.SHAPES[name])


def test_allreduce_flat():
    cluster = model.Cluster(4, _NET, _PCI, call_s=0.5)
    # 6 rounds, 1.5 times 800 bytes.
    assert cluster.allreduce_s(800) == pytest.approx(0.5 + 0.06 + 1.2)


def test_allreduce_two_levels():
    cluster = model.Cluster(8, _NET, _PCI, workers_per_node=4, call_s=0.0)
    inside = 6 * 0.001 + 1.5 * 800 / 10000
    between = 2 * 0.01 + 1.0 * 800 / 1000
    assert cluster.allreduce_s(800) == pytest.approx(inside + between)


def test_allreduce_on_one_node_leaves_the_network_alone():
    cluster = model.Cluster(2, _NET, _PCI, workers_per_node=4, call_s=0.0)
    assert cluster.allreduce_s(800) == pytest.approx(2 * 0.001 + 800 / 10000)


def test_allgather():
    flat = model.Cluster(4, _NET, _PCI, call_s=0.0)
    assert flat.allgather_s(100) == pytest.approx(3 * 0.01 + 300 / 1000)
    nodes = model.Cluster(8, _NET, _PCI, workers_per_node=4, call_s=0.0)
    inside = 3 * 0.001 + 0.75 * 800 / 10000
    assert nodes.allgather_s(100) == pytest.approx(inside + 0.01 + 0.4)


def test_alltoall():
    flat = model.Cluster(4, _NET, _PCI, call_s=0.0)
    assert flat.alltoall_s(400) == pytest.approx(3 * 0.01 + 300 / 1000)
    nodes = model.Cluster(8, _NET, _PCI, workers_per_node=4, call_s=0.0)
    inside = 3 * 0.001 + 3 / 8 * 800 / 10000
    between = 0.01 + 4 * 4 / 8 * 800 / 1000
    assert nodes.alltoall_s(800) == pytest.approx(inside + between)


def test_payload_time():
    cluster = model.Cluster(2, _NET, _NET, call_s=0.0)
    elements = 27 * 1000

    def seconds(exchange):
        return model.payload_time(exchange, elements, cluster)

    assert seconds("fp32") == pytest.approx(0.02 + 108.0)
    assert seconds("fp16") == pytest.approx(0.02 + 54.0)
    assert seconds("allreduce") == pytest.approx(0.02 + 8.0)
    assert seconds("allgather") == pytest.approx(0.01 + 5.4)
    assert seconds("alltoall") == pytest.approx(0.02 + 2.7 + 4.0)


def test_one_worker_has_nothing_to_exchange():
    cluster = model.Cluster(1, _NET, _PCI)
    kernels = model.Kernels(fp32=1.0, encode=1.0)
    for exchange in model.EXCHANGES:
        step = model.step_time(exchange, 100, 2, cluster, kernels, 0.25)
        assert step == model.StepTime(0.25, 0.0, 0.0)
        assert step.total_s == 0.25


def test_kernels():
    kernels = model.Kernels(
        fp32=1.0, fp16=2.0, scalers=4.0, encode=8.0, decode=16.0, add=32.0
    )
    assert kernels.seconds("fp32", 10, 4) == 10
    assert kernels.seconds("fp16", 10, 4) == 20
    assert kernels.seconds("allreduce", 10, 4) == 280
    assert kernels.seconds("allgather", 10, 4) == 280 + 4 * 320
    assert kernels.seconds("alltoall", 10, 4) == 280 + 320


def test_step_time_adds_up():
    cluster = model.Cluster(2, _NET, _NET, call_s=0.0)
    step = model.step_time(
        "fp32", 1000, 1, cluster, model.Kernels(fp32=1e-3), 0.5
    )
    assert (step.compute_s, step.kernels_s) == (0.5, 1.0)
    assert step.transfer_s == pytest.approx(4.02)
    assert step.total_s == pytest.approx(5.52)
    assert step.hidden_s == 0


@pytest.mark.parametrize("codec_s", [1.0, 8.0, 100.0])
def test_parts_hide_the_shorter_of_codec_and_transfer(codec_s):
    cluster = model.Cluster(2, _NET, _NET, call_s=0.25)
    elements = 27 * 1000
    kernels = model.Kernels(scalers=1 / elements, encode=codec_s / elements)
    step = model.step_time("allreduce", elements, 5, cluster, kernels, parts=4)
    payload_s = 4 * (0.25 + 0.02) + 8.0
    assert step.kernels_s == pytest.approx(1 + codec_s)
    assert step.transfer_s == pytest.approx(0.25 + 0.04 + payload_s)
    longer = max(codec_s, payload_s)
    shorter = min(codec_s, payload_s)
    assert step.exchange_s == pytest.approx(1 + 0.29 + longer + shorter / 4)
    best = [
        model.step_time(
            "allreduce", elements, 5, cluster, kernels, parts=p
        ).exchange_s
        for p in (1, 2, 3, 4, 5, 6, 8, 16)
    ]
    chosen = model.step_time("allreduce", elements, 5, cluster, kernels)
    if codec_s < 8:
        assert chosen.exchange_s == pytest.approx(min(best))
    else:
        assert chosen.exchange_s < best[0]


@pytest.mark.parametrize("num_workers", [2, 4, 8])
@pytest.mark.parametrize("exchange", model.TERNARY_EXCHANGES)
def test_bytes_are_those_of_the_compression(exchange, num_workers):
    sizes = [1_000_000] * 3
    sent = tg.TernGrad(exchange=exchange).bits_sent(
        sizes, ["a", "b", "c"], num_workers
    )
    cluster = model.Cluster(
        num_workers, model.Channel(1e-12, 1.0), _PCI, call_s=0.0
    )
    step = model.step_time(exchange, sum(sizes), 3, cluster, model.Kernels())
    seconds = step.transfer_s
    assert seconds == pytest.approx(sent / 8, rel=0.01)


def test_best_exchange_changes_with_workers():
    def best(n):
        cluster = model.Cluster(n, model.Channel(1e-6, 1e6), _PCI, call_s=0.0)
        return model.best_ternary(10**6, 1, cluster, model.Kernels())

    assert [best(n) for n in (2, 8, 64)] == ["allgather"] + ["alltoall"] * 2


def test_at_least_the_speed_up_of_the_talk():
    cluster = model.Cluster(
        8, profiles.NETWORKS["ethernet1g"], profiles.INSIDE["ethernet1g"], 4
    )
    profile = profiles.of_gpu("gtx1080", "alexnet")
    (row,) = program.predict(60_965_224, 16, profile, [cluster])
    images = row["images_per_s"]
    assert images["ternary"] / images["fp32"] >= 3.04


def test_published_profile():
    profile = profiles.of_gpu("p100", "alexnet")
    assert profile.compute_s == pytest.approx(128 / 2987)


def test_profile_from_file(tmp_path):
    file = tmp_path / "cpu.json"
    file.write_text(
        '{"images_per_s": 64, "batch_size": 32, "kernels_ns": {"encode": 2}}'
    )
    profile = profiles.from_file(str(file))
    assert profile.name == "cpu.json"
    assert profile.compute_s == 0.5
    assert profile.kernels == model.Kernels(encode=2e-9)


@pytest.mark.parametrize(
    "text, message",
    [
        (
            '{"images_per_s": 64}',
            "Invalid profile {}. Expected the keys ['batch_size', "
            "'images_per_s', 'kernels_ns']. Received: ['images_per_s']",
        ),
        (
            "[1]",
            "Invalid profile {}. Expected the keys ['batch_size', "
            "'images_per_s', 'kernels_ns']. Received: [1]",
        ),
        (
            '{"images_per_s": 6, "batch_size": 2, "kernels_ns": {"pack": 1}}',
            "Invalid kernels_ns in profile {}. Expected some of ['add', "
            "'decode', 'encode', 'fp16', 'fp32', 'scalers']. Received: "
            "['pack']",
        ),
    ],
)
def test_refuses_profiles(tmp_path, text, message):
    file = tmp_path / "profile.json"
    file.write_text(text)
    with pytest.raises(ValueError) as error:
        profiles.from_file(str(file))
    assert str(error.value) == message.format(file)


def test_refuses_arguments():
    with pytest.raises(ValueError) as error:
        model.Cluster(6, _NET, _PCI, workers_per_node=4)
    assert str(error.value) == (
        "Invalid value for argument num_workers. Expected at most "
        "workers_per_node=4, or a multiple of it. Received: num_workers=6"
    )
    with pytest.raises(ValueError) as error:
        model.Cluster(2, _NET, _PCI, busy_share=1.5)
    assert str(error.value) == (
        "Invalid value for argument busy_share. Expected a number in [0, 1]. "
        "Received: busy_share=1.5"
    )
    with pytest.raises(ValueError) as error:
        model.Channel(1e-6, 0)
    assert str(error.value) == (
        "Invalid value for argument bytes_per_s. Expected a finite number > "
        "0. Received: bytes_per_s=0"
    )
    with pytest.raises(ValueError) as error:
        model.payload_time("int8", 1, model.Cluster(2, _NET, _PCI))
    assert str(error.value) == (
        "Invalid value for argument exchange. Expected one of {'fp32', "
        "'fp16', 'allreduce', 'allgather', 'alltoall'}. Received: "
        "exchange='int8'"
    )


@pytest.mark.parametrize(
    "text, expected",
    [("1..512", [2**i for i in range(10)]), ("3..13", [3, 6, 12]), ("5", [5])],
)
def test_workers(text, expected):
    assert program.parse_workers(text) == expected


@pytest.mark.parametrize("text", ["", "0", "8..1", "1..", "two", "1,-2"])
def test_refuses_workers(text):
    with pytest.raises(ValueError) as error:
        program.parse_workers(text)
    assert str(error.value) == (
        "Invalid value for --workers. Expected integers >= 1 such as 1,8,64, "
        f"or 1..512. Received: {text}"
    )


def test_channel():
    assert program.parse_channel("network", "ethernet1g") == model.Channel(
        50e-6, 125e6
    )
    assert program.parse_channel("network", "1e-3,5e7") == model.Channel(
        1e-3, 5e7
    )


@pytest.mark.parametrize("text", ["token_ring", "1,2,3", "0,1e6", "1e-3"])
def test_refuses_channels(text):
    with pytest.raises(ValueError) as error:
        program.parse_channel("inside", text)
    assert str(error.value) == (
        "Invalid value for --inside. Expected one of ethernet1g, "
        "infiniband100g, or alpha_s,bytes_per_s, both > 0. Received: " + text
    )


def test_plot_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError) as error:
        plot.save("plot.png", [], "")
    assert str(error.value) == (
        "Plots need matplotlib. Install it: pip install matplotlib, or leave "
        "out --plot. (import of matplotlib.figure halted; None in sys.modules)"
    )


def _cell():
    # Two workers: 2 rounds of 10 ms are in the small allreduce of 30 ms.
    return {
        "link": "8kbit",
        "workers": 2,
        "payload": "lenet",
        "elements": 27_000,
        "tensors": 5,
        "measured_link": {
            "alpha_s": 0.01,
            "bytes_per_s": 1000.0,
            "small_allreduce_s": 0.03,
            "busy_share": 0.0,
        },
        "compute_ms": {"fp32": 970.0, "allreduce": 1000.0},
        "kernels_ms": {"scalers": 200.0, "encode": 500.0, "decode": 300.0},
        "methods": {
            "horovod fp32": {"median_ms": 100_000.0},
            "ternary allreduce": {"median_ms": 10_000.0},
        },
    }


def test_validate():
    float32, ternary = validate.compare([_cell()])
    assert float32["exchange"] == "horovod fp32"
    assert float32["predicted_ms"] == pytest.approx(970 + 30 + 108_000)
    assert float32["error"] == pytest.approx(0.09)
    predicted = 1000 + 30 + 20 + 30 + 8000
    assert ternary["predicted_ms"] == pytest.approx(predicted)
    assert ternary["error"] == pytest.approx(-0.092)
    assert ternary["payload"] == "lenet"


def test_calls_beside_kernels_take_longer():
    def seconds(busy_call_s, parts):
        cluster = model.Cluster(
            2, _NET, _NET, call_s=0.03, busy_call_s=busy_call_s
        )
        kernels = model.Kernels(encode=1e-6)  # less than the transfer
        return model.step_time(
            "alltoall", 27_000, 1, cluster, kernels, parts=parts
        ).total_s

    # Of four parts with two collectives each; one part has nothing beside it.
    assert seconds(0.05, 4) - seconds(0.03, 4) == pytest.approx(4 * 2 * 0.02)
    assert seconds(0.05, 1) == seconds(0.03, 1) == seconds(None, 1)
    assert seconds(None, 4) == seconds(0.03, 4)


def test_moving_bytes_takes_the_core():
    def seconds(busy_share):
        cluster = model.Cluster(2, _NET, _NET, busy_share=busy_share)
        kernels = model.Kernels(encode=1e-3)  # 27 s, more than the transfer
        return model.step_time(
            "allgather", 27_000, 1, cluster, kernels, parts=4
        ).total_s

    transfer_s = 4 * 0.01 + 27_000 / 5 / 1000.0
    assert seconds(0.5) - seconds(0.0) == pytest.approx(transfer_s / 2)


def test_refuses_to_validate(tmp_path):
    with pytest.raises(ValueError) as error:
        validate.load([str(tmp_path)])
    assert str(error.value) == (
        "Invalid value for --validate. Expected JSON files of "
        f"benchmarks/exchange.py. Received: {tmp_path}"
    )
    file = tmp_path / "other.json"
    file.write_text("{}")
    with pytest.raises(ValueError) as error:
        validate.load([str(file)])
    assert str(error.value) == (
        f"Invalid file {file}. Expected a result of benchmarks/exchange.py, "
        "with measured_link and compute_ms."
    )


def test_program_prints_json_and_plots(tmp_path):
    image = tmp_path / "figures" / "alexnet.png"
    pytest.importorskip("matplotlib")
    done = _run("--json", "--workers=1,8", f"--plot={image}")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["title"] == (
        "alexnet, ethernet1g, 4 a node, gtx1080, batch 128 a worker"
    )
    assert [row["workers"] for row in report["rows"]] == [1, 8]
    assert report["rows"][1]["exchange"] in model.TERNARY_EXCHANGES
    assert image.read_bytes().startswith(b"\x89PNG")


def test_program_prints_tables(tmp_path):
    (tmp_path / "cell.json").write_text(json.dumps(_cell()))
    done = _run(f"--validate={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "109000.00 ms" in done.stdout
    assert "within 15 %: 2 of 2" in done.stdout
    done = _run("--model=vgg_a", "--workers=4", "--network=1e-4,1e8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "vgg_a, 1e-4,1e8, 4 a node, gtx1080, batch 32 a worker: 132,863,336 "
        "elements, 128 images/s of one alone; a model, nothing here was "
        "measured\n"
    )


def test_program_refuses_flags():
    done = _run("--workers=3..2")
    assert done.returncode == 1
    assert (
        "Invalid value for --workers. Expected integers >= 1 such as 1,8,64, "
        "or 1..512. Received: 3..2"
    ) in done.stdout + done.stderr

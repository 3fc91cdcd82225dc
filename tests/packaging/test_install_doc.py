"""The job files in docs/install.md say what horovodrun and Slurm understand."""

import os
import pathlib
import re
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _block(language):
    text = (ROOT / "docs" / "install.md").read_text()
    return re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)[1]


def _program(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + lines)
    path.chmod(0o755)


def test_slurm_job(tmp_path):
    _program(tmp_path / "bin" / "scontrol", "printf 'node1\\nnode2\\n'\n")
    _program(tmp_path / ".venv" / "bin" / "horovodrun", 'echo "$@"\n')
    result = subprocess.run(
        ["bash", "-eu", "-c", _block("bash")],
        env={
            "PATH": f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_NTASKS": "4",
            "SLURM_NTASKS_PER_NODE": "2",
            "SLURM_SUBMIT_DIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == (
        "--gloo -np 4 -H node1:2,node2:2 --network-interfaces ib0 "
        ".venv/bin/python train.py --workdir=runs/slurm "
        "--flagfile=models/recipes/lenet_mnist_terngrad.flags\n"
    )


def test_kubernetes_job():
    job = yaml.safe_load(_block("yaml"))
    replicas = job["spec"]["mpiReplicaSpecs"]
    containers = [
        replicas[name]["template"]["spec"]["containers"][0]
        for name in ("Launcher", "Worker")
    ]
    arguments = containers[0]["args"]
    workers = job["spec"]["slotsPerWorker"] * replicas["Worker"]["replicas"]
    assert arguments[arguments.index("-np") + 1] == str(workers)
    recipe = arguments[-1].removeprefix("--flagfile=")
    assert (ROOT / recipe).is_file()
    assert containers[0]["image"] == containers[1]["image"]

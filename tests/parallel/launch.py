"""Starts worker processes on this host."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def launch(num_workers, arguments, timeout=150, options=(), **environment):
    """Runs `python arguments` under horovodrun; returns the finished process.

    `options` are more of horovodrun's.

    A worker that waits for a collective which the others never call gives up
    after half a minute; everything is killed after `timeout` seconds.
    """
    binaries = pathlib.Path(sys.executable).parent
    env = os.environ | {
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
        "HOROVOD_DYNAMIC_PROCESS_SETS": "1",
        "HOROVOD_STALL_CHECK_TIME_SECONDS": "5",
        "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "30",
        "OMP_NUM_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        **environment,
    }
    command = ["horovodrun", "-np", str(num_workers), "--gloo", *options]
    with subprocess.Popen(
        [*command, sys.executable, *arguments],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            output, _ = process.communicate()
            output += f"\nKilled after {timeout} s."
    return subprocess.CompletedProcess(
        command, process.returncode, stdout=output
    )

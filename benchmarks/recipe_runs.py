"""Runs of train.py with recipes, each in a process of its own."""

import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]


def train(recipe, workdir, log, flags) -> bool:
    """Does a run unless it is finished; whether it is finished then.

    One that was killed goes on from its last checkpoint.

    Args:
      recipe: name of a file in models/recipes, without its ending.
      workdir: of the run.
      log: file that its output is added to.
      flags: more flags, after those of the recipe.
    """
    workdir, log = pathlib.Path(workdir), pathlib.Path(log)
    if (workdir / "model.keras").is_file():
        return True
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "train.py",
        f"--flagfile=models/recipes/{recipe}.flags",
        f"--workdir={workdir}",
        *flags,
    ]
    began = time.monotonic()
    say(f"{workdir}: starts")
    with open(log, "a") as file:
        file.write(f"$ python {' '.join(command[1:])}\n")
        file.flush()
        with subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT
        ) as process:
            try:
                process.wait()
            except BaseException:
                process.terminate()
                raise
    minutes = (time.monotonic() - began) / 60
    word = "FAILED" if process.returncode else "done"
    say(f"{workdir}: {word} in {minutes:.1f} min: {log}")
    return process.returncode == 0


def say(text: str) -> None:
    """Prints with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

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
    command = [
        sys.executable,
        "train.py",
        f"--flagfile=models/recipes/{recipe}.flags",
        f"--workdir={workdir}",
        *flags,
    ]
    say(f"{workdir}: starts")
    code, minutes = run(command, log, f"python {' '.join(command[1:])}")
    word = "FAILED" if code else "done"
    say(f"{workdir}: {word} in {minutes:.1f} min: {log}")
    return code == 0


def run(command, log, shown) -> tuple[int, float]:
    """Runs a program in the project's folder; ends it with this one.

    Args:
      command: words.
      log: file that the command as `shown` and its output are added to.
      shown: the command as text.

    Returns:
      The exit status, and minutes.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with open(log, "a") as file:
        file.write(f"$ {shown}\n")
        file.flush()
        with subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT
        ) as process:
            try:
                process.wait()
            except BaseException:
                process.terminate()
                raise
    return process.returncode, (time.monotonic() - began) / 60


def say(text: str) -> None:
    """Prints with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

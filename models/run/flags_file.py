"""The flags of a run in a file that `--flagfile` reads.

The functions take absl's `FlagValues` and never look at the global flags.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from absl import flags


def write(
    path: str | pathlib.Path, options: flags.FlagValues, names: set[str]
) -> None:
    """Writes one line per flag, but for those without a value.

    Args:
      path: of the file.
      options: parsed flags.
      names: which of them; absl and other libraries define their own.
    """
    lines = [
        options[name].serialize()
        for name in sorted(names)
        if options[name].value is not None
    ]
    pathlib.Path(path).write_text("".join(f"{each}\n" for each in lines))


def read(
    path: str | pathlib.Path, define: Callable[[flags.FlagValues], None]
) -> flags.FlagValues:
    """Reads such a file.

    Args:
      path: of the file.
      define: defines the flags that it may hold.

    Raises:
      ValueError: it holds another flag, or a value that is not valid.
      OSError: it cannot be read.
    """
    lines = pathlib.Path(path).read_text().splitlines()
    options = flags.FlagValues()
    define(options)
    try:
        options([str(path), *lines])
    except flags.Error as error:
        raise ValueError(f"Cannot read {path}. {error}") from error
    return options


def check_same(
    workdir: str | pathlib.Path,
    before: flags.FlagValues,
    now: flags.FlagValues,
    names: set[str],
) -> None:
    """Checks that a run goes on with the flags that it began with.

    Args:
      workdir: for the message.
      before: the flags that it began with.
      now: the flags of this start.
      names: which of them say what is computed.

    Raises:
      ValueError: some differ; the message names them.
    """
    differing = [
        f"--{name}={_text(before[name].value)} there, "
        f"{_text(now[name].value)} here"
        for name in sorted(names)
        if before[name].value != now[name].value
    ]
    if differing:
        raise ValueError(
            f"Workdir {workdir} holds a run with other flags: "
            f"{'; '.join(differing)}. Choose another --workdir, or give the "
            "flags of that run (its flags.txt) to go on with it."
        )


def _text(value) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)

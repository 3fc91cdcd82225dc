import re

import pytest
from absl import flags

from models.run import flags_file


def define(options):
    flags.DEFINE_string("model", "lenet", "", flag_values=options)
    flags.DEFINE_integer("steps", None, "", flag_values=options)
    flags.DEFINE_list("exempt", [], "", flag_values=options)
    flags.DEFINE_bool("fast", True, "", flag_values=options)


def parse(*arguments):
    options = flags.FlagValues()
    define(options)
    options(["program", *arguments])
    return options


NAMES = {"model", "steps", "exempt", "fast"}


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--model=a b", "--steps=3", "--exempt=*/bias,x", "--nofast"),
        ("--model=", "--exempt=x"),
    ],
)
def test_round_trip(tmp_path, arguments):
    options = parse(*arguments)
    flags_file.write(tmp_path / "flags.txt", options, NAMES)
    read = flags_file.read(tmp_path / "flags.txt", define)
    by_flagfile = parse(f"--flagfile={tmp_path}/flags.txt")
    for name in NAMES:
        assert read[name].value == options[name].value
        assert by_flagfile[name].value == options[name].value


def test_flags_without_value_and_of_others_are_not_written(tmp_path):
    path = tmp_path / "flags.txt"
    flags_file.write(path, parse("--model=mlp"), {"model", "steps"})
    assert path.read_text() == "--model=mlp\n"


@pytest.mark.parametrize(
    "line, reason",
    [
        ("--colour=blue", "Unknown command line flag 'colour'"),
        (
            "--steps=few",
            "flag --steps=few: invalid literal for int() with base 10: 'few'",
        ),
    ],
)
def test_bad_line(tmp_path, line, reason):
    path = tmp_path / "flags.txt"
    path.write_text(f"--model=mlp\n{line}\n")
    message = f"Cannot read {path}. {reason}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        flags_file.read(path, define)


def test_flags_that_differ_are_named():
    before = parse("--exempt=*/bias,x", "--steps=3")
    now = parse("--exempt=x", "--model=mlp", "--steps=4")
    message = (
        "Workdir runs/a holds a run with other flags: --exempt=*/bias,x there, "
        "x here; --model=lenet there, mlp here. Choose another --workdir, or "
        "give the flags of that run (its flags.txt) to go on with it."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        flags_file.check_same("runs/a", before, now, NAMES - {"steps"})
    flags_file.check_same("runs/a", before, now, {"fast"})

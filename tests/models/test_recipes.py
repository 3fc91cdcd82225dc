import pathlib

import pytest
from absl import flags

import models
import train

RECIPES = sorted(pathlib.Path(models.__file__).parent.glob("recipes/*.flags"))


def parse(recipe):
    options = flags.FlagValues()
    train.define_flags(options)
    options(["train.py", f"--flagfile={recipe}"])
    return options


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_valid_and_described(recipe):
    options = parse(recipe)
    assert options.workdir == f"runs/{recipe.stem}"
    header = recipe.read_text().split("\n--")[0]
    for word in ("Paper:", "Command:", "Expected:", "Time:", recipe.name):
        assert word in header


def test_float_and_ternary_differ_in_the_exchange_alone():
    folder = RECIPES[0].parent
    first, second = (
        parse(folder / f"lenet_mnist_{name}.flags")
        for name in ("float", "terngrad")
    )
    differing = {
        name for name in first if first[name].value != second[name].value
    }
    assert differing - {"flagfile"} == {"workdir", "compression"}

import fnmatch
import pathlib

import pytest
from absl import flags

import models
import train
from tests.models.outline import outline

RECIPES = sorted(pathlib.Path(models.__file__).parent.glob("recipes/*.flags"))
STEMS = [recipe.stem for recipe in RECIPES]
TERNARY = [stem for stem in STEMS if stem.endswith("_terngrad")]

# The talk's tables: workers, total batch, steps, learning rate.
TABLE = {
    "cifar10_adam_n2": (2, 128, 300_000, 0.0002),
    "cifar10_adam_n16": (16, 2048, 18_750, 0.0002),
    "alexnet_n2": (2, 256, 370_000, 0.01),
    "alexnet_n4": (4, 512, 185_000, 0.02),
    "alexnet_n8": (8, 1024, 92_500, 0.04),
    "googlenet_n2": (2, 128, 600_000, 0.04),
    "googlenet_n4": (4, 256, 300_000, 0.08),
    "googlenet_n8": (8, 512, 300_000, 0.1),
}

# What the paper changes beside the gradients.
ALSO_DIFFERENT = {
    "alexnet": {"dropout", "min_size", "exempt"},
    "googlenet": {"dropout", "weight_decay", "exempt"},
}


def parse(recipe):
    options = flags.FlagValues()
    train.define_flags(options)
    options(["train.py", f"--flagfile={recipe}"])
    return options


def differing(first, second):
    first, second = (
        parse(RECIPES[0].parent / f"{stem}.flags") for stem in (first, second)
    )
    names = {name for name in first if first[name].value != second[name].value}
    return names - {"flagfile"}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_valid_and_described(recipe):
    options = parse(recipe)
    assert options.workdir == f"runs/{recipe.stem}"
    header = recipe.read_text().split("\n--")[0]
    for word in ("Paper:", "Command", "Expected:", "Time:", recipe.name):
        assert word in header


@pytest.mark.parametrize("stem", TERNARY)
def test_float_and_ternary_differ_in_the_exchange_alone(stem):
    also = ALSO_DIFFERENT.get(stem.split("_")[0], set())
    names = differing(stem, stem.replace("_terngrad", "_float"))
    assert names == {"workdir", "compression"} | also


def test_with_and_without_clipping():
    names = differing("alexnet_n2_terngrad", "alexnet_n2_noclip")
    assert names == {"workdir", "clip_factor"}


@pytest.mark.parametrize("row", TABLE)
@pytest.mark.parametrize("kind", ["float", "terngrad"])
def test_rows_of_the_talks_tables(row, kind):
    workers, total, steps, learning_rate = TABLE[row]
    options = parse(RECIPES[0].parent / f"{row}_{kind}.flags")
    assert options.batch_size * workers == total
    assert options.steps == steps
    assert options.learning_rate == learning_rate
    assert options.clip_factor == 2.5


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_fits_its_model(recipe):
    options = parse(recipe)
    own = {} if options.dropout is None else {"dropout": options.dropout}
    # 24 x 24 and 224 x 224 are what --augment makes of the images.
    model = outline(models.build, name=options.model, **own)
    size = {"none": 28, "cifar": 24, "imagenet": 224}[options.augment]
    assert model.input_shape[1:3] == (size, size)
    paths = [v.path for v in model.trainable_variables]
    for pattern in options.exempt:
        exempt = fnmatch.filter(paths, pattern)
        assert exempt == ["logits/kernel", "logits/bias"]

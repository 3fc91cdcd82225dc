import fnmatch
import pathlib
import types

import pytest
from absl import flags

import models
import train
from models import run
from tests.models.outline import num_elements, outline

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


IMAGES = [path for path in RECIPES if not path.stem.startswith("iss_")]
ISS = [path for path in RECIPES if path not in IMAGES]

# Million weights of the talk's dense networks; bidaf's without given vectors.
ISS_WEIGHTS = {
    "iss_ptb_baseline": 66.0,
    "iss_ptb_direct": 21.8,
    "iss_rhn_baseline": 23.5,
}

# SSL: the baseline, structured sparsity from its weights, fine-tuning with the
# zeros held.
SPARSE = [
    stem
    for stem in STEMS
    if stem.startswith("ssl_") and f"{stem}_finetune" in STEMS
]


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


@pytest.mark.parametrize("stem", SPARSE)
def test_stages_of_structured_sparsity(stem):
    sparse, finetune = (
        parse(RECIPES[0].parent / f"{name}.flags")
        for name in (stem, f"{stem}_finetune")
    )
    baseline = pathlib.Path(sparse.init_from).name
    assert sparse.init_from == f"runs/{baseline}"
    assert finetune.init_from == f"runs/{stem}"
    for name in ("model", "dataset", "augment", "image_size", "shortcut"):
        values = {
            parse(RECIPES[0].parent / f"{each}.flags")[name].value
            for each in (baseline, stem, f"{stem}_finetune")
        }
        if name == "augment":  # same sizes and values, moved or not
            values = {"none" if each == "shift" else each for each in values}
        assert len(values) == 1, name
    penalties = ("group_lasso", "structure_lasso", "depth_lasso")
    assert any(sparse[name].value for name in penalties)
    assert not any(finetune[name].value for name in penalties)
    assert sparse.freeze_zeros == "none"
    assert finetune.freeze_zeros != "none"
    assert sparse.compression == finetune.compression == "none"


def test_every_network_of_ssl_has_its_stages():
    assert {stem.removeprefix("ssl_") for stem in SPARSE} == {
        *("lenet2", "lenet3", "lenet4", "lenet5", "mlp2", "mlp3"),
        *("convnet", "resnet20", "resnet32", "alexnet"),
    }


@pytest.mark.parametrize(
    "stem", [s for s in STEMS if parse(RECIPES[STEMS.index(s)]).group_lasso]
)
def test_penalties_fit_the_kernels(stem):
    options = parse(RECIPES[0].parent / f"{stem}.flags")
    model = outline(models.build, name=options.model)
    run.Sparsity(options.group_lasso).regularize(model)
    regularized = [v for v in model.trainable_variables if v.regularizer]
    assert regularized
    # Rows of the output layer are the classes.
    for penalty in run.group_lasso_flag.parse(options.group_lasso).items():
        assert penalty[0] != run.group_lasso_flag.ALL_KERNELS


def own_options(options):
    """The model's options among the flags."""
    given = run.tasks.Task.given
    return given(types.SimpleNamespace(options=options))


@pytest.mark.parametrize("recipe", IMAGES, ids=lambda path: path.stem)
def test_recipe_fits_its_model(recipe):
    options = parse(recipe)
    own = own_options(options)
    # 24 x 24 and so on are what --augment makes of the images.
    model = outline(models.build, name=options.model, **own)
    size = {
        "none": 28,
        "shift": 28,
        "cifar": 24,
        "cifar_pad": 32,
        "imagenet": 224,
    }
    size = options.image_size or size[options.augment]
    if options.model != "compactnet":  # which takes any
        assert model.input_shape[1:3] == (size, size)
    paths = [v.path for v in model.trainable_variables]
    for pattern in options.exempt:
        exempt = fnmatch.filter(paths, pattern)
        assert exempt == ["logits/kernel", "logits/bias"]


@pytest.mark.parametrize("recipe", ISS, ids=lambda path: path.stem)
def test_recurrent_recipe_fits_its_model(recipe):
    options = parse(recipe)
    sizes = (
        {"vocab_size": options.vocab_size}
        if options.dataset == "words"
        else {"vocab_size": 9, "char_vocab_size": 9}
    )
    model = outline(
        models.build, name=options.model, **sizes, **own_options(options)
    )
    if recipe.stem in ISS_WEIGHTS:
        millions = num_elements(model.trainable_variables) / 1e6
        assert round(millions, 1) == ISS_WEIGHTS[recipe.stem]
    layers = [layer.name for layer in model.layers]
    for pattern in options.iss_exclude:
        assert fnmatch.filter(layers, pattern)
    assert options.compression == "none"
    dense = recipe.stem.endswith(("baseline", "direct"))
    assert bool(options.iss_strength) != dense


def test_every_row_of_iss_has_a_recipe():
    rows = {
        *("ptb_baseline", "ptb_373_315", "ptb_381_535", "ptb_direct"),
        *("rhn_baseline", "rhn_004", "rhn_005", "rhn_006", "rhn_007"),
        "bidaf_baseline",
        *(
            f"bidaf_{kind}_{row}"
            for kind in ("finetune", "scratch")
            for row in (1, 2, 3, 4)
        ),
    }
    assert {f"iss_{row}" for row in rows} <= set(STEMS)


@pytest.mark.parametrize("strength", ["004", "005", "006", "007"])
def test_dropout_of_rhn_is_six_tenths(strength):
    dense, sparse = (
        parse(RECIPES[0].parent / f"iss_rhn_{name}.flags")
        for name in ("baseline", strength)
    )
    assert sparse.iss_strength == pytest.approx(int(strength) / 1000)
    for kind in ("word", "input", "recurrent", "output"):
        rate = f"{kind}_dropout"
        assert sparse[rate].value == pytest.approx(0.6 * dense[rate].value)

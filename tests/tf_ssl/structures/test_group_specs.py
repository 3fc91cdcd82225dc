"""Names of groups: their one form, and what is wrong with others."""

import pytest

from tf_ssl.structures import group_specs


def test_normalize():
    assert group_specs.normalize("row") == "row"
    assert group_specs.normalize(["row", "column"]) == ("row", "column")
    assert group_specs.normalize(["axis", [0, 1]]) == ("axis", (0, 1))
    mixed = group_specs.normalize(["row", ["block", [2, 2]]])
    assert mixed == ("row", ("block", (2, 2)))
    assert group_specs.as_tuple(mixed) == mixed
    assert group_specs.as_tuple("row") == ("row",)
    assert group_specs.as_tuple(("axis", (0,))) == (("axis", (0,)),)


KNOWN = (
    "{'filter', 'channel', 'shape', 'kernel2d', 'layer', 'row', 'column'}, or "
    "a tuple of these"
)


@pytest.mark.parametrize(
    "value, shown",
    [
        ("filtre", "'filtre'"),
        ((), "()"),
        (3, "3"),
        (("row", "colum"), "'colum'"),
        ((("row",),), "('row',)"),
        ("axis", "'axis'"),
    ],
)
def test_unknown_groups(value, shown):
    with pytest.raises(ValueError) as error:
        group_specs.normalize(value)
    assert str(error.value) == (
        "Invalid value for argument groups. Expected one of "
        f"{KNOWN}. Received: groups={shown}"
    )


@pytest.mark.parametrize("axis", [(), "rows", (0.5,), (True,)])
def test_axis_must_be_integers(axis):
    with pytest.raises(ValueError) as error:
        group_specs.axis_spec(axis)
    assert str(error.value) == (
        "Invalid value for argument axis. Expected a tuple of integers: the "
        f"axes summed inside a group. Received: axis={axis!r}"
    )


@pytest.mark.parametrize("block", [3, (2,), (2, 0), (2, 2.0), "ab"])
def test_block_must_be_two_integers(block):
    with pytest.raises(ValueError) as error:
        group_specs.block_spec(block)
    assert str(error.value) == (
        "Invalid value for argument block. Expected (h, w), integers >= 1: h "
        f"filters times w columns. Received: block={block!r}"
    )

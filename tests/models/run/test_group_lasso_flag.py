import re

import pytest

from models.run import group_lasso_flag


@pytest.mark.parametrize(
    "items, want",
    [
        ([], {}),
        (
            ["filter:0.005"],
            {"*": [{"strength": 0.005, "groups": "filter"}]},
        ),
        (
            ["conv*@filter+shape:1e-3"],
            {"conv*": [{"strength": 0.001, "groups": ("filter", "shape")}]},
        ),
        (
            ["a/kernel@block4x2:2", "a/kernel@l1:0.5", "b@layer:1"],
            {
                "a/kernel": [
                    {"strength": 2.0, "groups": ("block", (4, 2))},
                    {"strength": 0.0, "l1": 0.5},
                ],
                "b": [{"strength": 1.0, "groups": "layer"}],
            },
        ),
        (
            ["row+l1+column:0.25"],
            {
                "*": [
                    {"strength": 0.25, "groups": ("row", "column")},
                    {"strength": 0.0, "l1": 0.25},
                ]
            },
        ),
    ],
)
def test_parse(items, want):
    assert group_lasso_flag.parse(items) == want


@pytest.mark.parametrize(
    "item",
    [
        "filter",
        ":0.1",
        "filter:",
        "filter+:0.1",
        "@filter:0.1",
        "filter:many",
        "filter:-1",
        "filter:nan",
        "filter:inf",
    ],
)
def test_parts_that_cannot_be_read(item):
    message = (
        "Invalid value for flag --group_lasso. Expected "
        "[PATTERN@]KIND[+KIND...]:STRENGTH with a finite strength >= 0. "
        f"Received: {item!r}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        group_lasso_flag.parse(["row:1", item])

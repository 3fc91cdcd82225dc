"""The examples in docstrings run and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

PACKAGES = ("custom_ops", "models", "tf_ssl", "tf_terngrad")


def _modules():
    for package in PACKAGES:
        yield package
        path = importlib.import_module(package).__path__
        for module in pkgutil.walk_packages(path, prefix=f"{package}."):
            # The shared library is not a Python module, though named like one.
            if module.name != "custom_ops.libcustom_ops":
                yield module.name


@pytest.mark.parametrize("name", sorted(_modules()))
def test_examples(name):
    result = doctest.testmod(
        importlib.import_module(name),
        optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS,
    )
    assert result.failed == 0

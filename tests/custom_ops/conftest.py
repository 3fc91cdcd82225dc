import pytest

from custom_ops import library


@pytest.fixture(params=["c++", "fallback"])
def implementation(request, monkeypatch):
    """Runs a test on the C++ ops and on the plain TensorFlow fallback."""
    if request.param == "fallback":
        monkeypatch.setattr(library, "ops", lambda: None)
    elif library.ops() is None:
        pytest.skip("the C++ ops are not built")
    return request.param


@pytest.fixture
def compiled():
    """Skips a test of the C++ ops where they are not built."""
    if library.ops() is None:
        pytest.skip("the C++ ops are not built")

import re

import pytest

from models.data import prepared


def make(data_dir, *parts):
    folder = data_dir.joinpath(*parts)
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_newest_version(tmp_path):
    make(tmp_path, "mnist", "3.0.1")
    newest = make(tmp_path, "mnist", "3.0.10")
    (tmp_path / "mnist" / "4.0.0").mkdir()  # half prepared
    assert prepared.find("mnist", tmp_path) == newest


def test_config_and_version(tmp_path):
    older = make(tmp_path, "shapes", "small", "1.0.0")
    newer = make(tmp_path, "shapes", "small", "1.1.0")
    assert prepared.find("shapes", tmp_path) == newer
    assert prepared.find("shapes/small", tmp_path) == newer
    assert prepared.find("shapes/small:1.0.0", tmp_path) == older


def test_names(tmp_path):
    make(tmp_path, "mnist", "3.0.1")
    make(tmp_path, "shapes", "small", "1.0.0")
    (tmp_path / "empty").mkdir()
    assert prepared.prepared_names(tmp_path) == ["mnist", "shapes"]
    assert prepared.prepared_names(tmp_path / "none") == []


def test_repository_carries_mnist():
    folder = prepared.DEFAULT_DATA_DIR / "mnist" / "3.0.1"
    assert prepared.find("mnist") == folder


@pytest.mark.parametrize("name", ["mnits", "mnits:1.0.0", "no/such name"])
def test_unknown(tmp_path, name):
    make(tmp_path, "mnist", "3.0.1")
    hint = " Did you mean 'mnist'?" if name == "mnits" else ""
    message = (
        f"Invalid value for argument name. Expected a dataset of {tmp_path} "
        "{'mnist'} or of TFDS (https://www.tensorflow.org/datasets/catalog). "
        f"Received: name={name!r}.{hint}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        prepared.find(name, tmp_path)


def test_not_prepared(tmp_path):
    message = (
        "No prepared dataset 'cifar10' in data_dir. Looked in: "
        f"{tmp_path}/cifar10. Fill it, where there is a network, with: "
        f"tfds build cifar10 --data_dir={tmp_path}"
    )
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
        prepared.find("cifar10", tmp_path)

"""Finds a data set that TFDS has prepared, without a network.

TFDS writes `data_dir/name[/config]/version/` with `dataset_info.json`,
`features.json` and the records. Nothing here downloads, and no dataset's
own code is imported: the folder says all there is to know.
"""

from __future__ import annotations

import difflib
import pathlib
import re

import tensorflow_datasets as tfds

# The repository carries MNIST here.
DEFAULT_DATA_DIR = pathlib.Path(__file__).resolve().parents[2] / "data"

_NAME = re.compile(
    r"(?P<name>\w+)(/(?P<config>[\w.@-]+))?(:(?P<version>\d+\.\d+\.\d+))?"
)
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def prepared_names(data_dir: str | pathlib.Path | None = None) -> list[str]:
    """Returns the names of the data sets in `data_dir`, sorted."""
    folder = _folder(data_dir)
    found = folder.glob("*/**/dataset_info.json") if folder.is_dir() else ()
    return sorted({path.relative_to(folder).parts[0] for path in found})


def find(name: str, data_dir: str | pathlib.Path | None = None) -> pathlib.Path:
    """Returns the folder of a prepared data set, of the newest version.

    Args:
      name: TFDS's name: `name`, `name/config`, `name:1.2.3` or
        `name/config:1.2.3`.
      data_dir: TFDS's data folder; None is the repository's own `data/`.

    Raises:
      ValueError: neither `data_dir` nor TFDS knows the name.
      FileNotFoundError: TFDS knows it, but `data_dir` does not hold it.
    """
    folder = _folder(data_dir)
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise _unknown(name, folder)
    looked_in = folder / parts["name"] / (parts["config"] or "")
    pattern = parts["version"] or "*"
    # Without a config in the name, one level of configs may lie between.
    patterns = [pattern] if parts["config"] else [pattern, f"*/{pattern}"]
    for each in patterns:
        versions = [
            path
            for path in looked_in.glob(each)
            if _VERSION.fullmatch(path.name)
            and (path / "dataset_info.json").is_file()
        ]
        if versions:
            return max(versions, key=_version_key)
    if parts["name"] not in _tfds_names():
        raise _unknown(name, folder)
    raise FileNotFoundError(
        f"No prepared dataset {name!r} in data_dir. Looked in: {looked_in}. "
        "Fill it, where there is a network, with: "
        f"tfds build {name} --data_dir={folder}"
    )


def _folder(data_dir: str | pathlib.Path | None) -> pathlib.Path:
    return pathlib.Path(data_dir or DEFAULT_DATA_DIR).expanduser().absolute()


def _version_key(path: pathlib.Path) -> tuple[int, ...]:
    return tuple(int(number) for number in path.name.split("."))


def _tfds_names() -> list[str]:
    # The community's sets would be looked up over the network.
    return tfds.list_builders(with_community_datasets=False)


def _unknown(name: str, folder: pathlib.Path) -> ValueError:
    here = prepared_names(folder)
    close = difflib.get_close_matches(name, here + _tfds_names(), n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return ValueError(
        "Invalid value for argument name. Expected a dataset of "
        f"{folder} {{{', '.join(map(repr, here))}}} or of TFDS "
        "(https://www.tensorflow.org/datasets/catalog). "
        f"Received: name={name!r}.{hint}"
    )

"""Files that people write settings into: TOML or YAML, with a bound, every failure told."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from .errors import FormatError
from .formats.files import read_bytes
from .formats.yaml_file import read_yaml


if TYPE_CHECKING:
    from pathlib import Path


MAX_SETTINGS_BYTES = 2**20
YAML_SUFFIXES = (".yaml", ".yml")


def read_settings(file: Path) -> Any:
    """Returns the document in a file: YAML where its name ends so, TOML otherwise.

    Raises:
        FormatError: it cannot be read, or is no document of its kind.
    """
    if file.suffix.lower() in YAML_SUFFIXES:
        return read_yaml(file, is_settings=True)
    content = read_bytes(file, max_bytes=MAX_SETTINGS_BYTES)
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        text = " ".join(str(error).split())[:200]
        raise FormatError(f"Expected {file} to hold TOML, got: {text}") from error

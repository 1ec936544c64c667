"""Files that describe deployments, in TOML or YAML."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import FormatError
from .formats.files import read_bytes
from .formats.yaml_file import read_yaml
from .spec_document import deployments_of


if TYPE_CHECKING:
    import os

    from expertplane.v1 import deployment_pb2


MAX_SPEC_BYTES = 2**20


def read_deployments(
    path: str | os.PathLike[str],
) -> list[tuple[str, deployment_pb2.DeploymentSpec]]:
    """Returns the names and specs of the deployments that a file describes, in its order.

    The file has the keys `name` and those of a `DeploymentSpec`, or a list of such tables named
    `deployments`; see `spec_document`.

    Args:
        path: Ends in .toml, .yaml or .yml; YAML needs the extra `formats`.

    Raises:
        FormatError: it cannot be read, or describes no deployments.
    """
    file = Path(path)
    return deployments_of(_read(file), source=str(file))


def _read(file: Path) -> Any:
    suffix = file.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return read_yaml(file, is_settings=True)
    if suffix != ".toml":
        raise FormatError(f"Expected a name that ends in .toml, .yaml or .yml, got {str(file)!r}.")
    content = read_bytes(file, max_bytes=MAX_SPEC_BYTES)
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        text = " ".join(str(error).split())[:200]
        raise FormatError(f"Expected {file} to hold TOML, got: {text}") from error

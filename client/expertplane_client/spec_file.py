"""Files that describe deployments, in TOML or YAML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import FormatError
from .settings_file import YAML_SUFFIXES, read_settings
from .spec_document import deployments_of


if TYPE_CHECKING:
    import os

    from expertplane.v1 import deployment_pb2


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
    if suffix != ".toml" and suffix not in YAML_SUFFIXES:
        raise FormatError(f"Expected a name that ends in .toml, .yaml or .yml, got {str(file)!r}.")
    return read_settings(file)

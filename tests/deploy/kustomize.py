"""The manifests as a cluster would get them."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml


ROOT = Path(__file__).parents[2]
TARGETS = ("base", "overlays/gpu", "overlays/local")


@functools.cache
def render(target: str) -> tuple[dict[str, Any], ...]:
    """Returns the objects of a base or an overlay; skips the calling test without kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        notice = "kubectl is not installed: the manifests cannot be rendered"
        if os.environ.get("CI") == "true":
            pytest.fail(notice)
        pytest.skip(notice)
    folder = ROOT / "deploy" / "kustomize" / target
    rendered = subprocess.run(
        [kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert rendered.returncode == 0, rendered.stderr
    return tuple(yaml.safe_load_all(rendered.stdout))


def the(kind: str, target: str) -> dict[str, Any]:
    """Returns the one object of a kind."""
    (found,) = (one for one in render(target) if one["kind"] == kind)
    return found


def pod(target: str) -> dict[str, Any]:
    """Returns the pod's specification."""
    spec: dict[str, Any] = the("Deployment", target)["spec"]["template"]["spec"]
    return spec


def planner(target: str) -> dict[str, Any]:
    """Returns the one container."""
    container: dict[str, Any]
    (container,) = pod(target)["containers"]
    return container

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from expertplane_client.probe import health
from expertplane_server.config import ServerConfig, parse_address
from expertplane_server.rpc.health import NAMES

from .dockerfile import Stage, parse
from .kustomize import ROOT, planner, pod


DOCKERFILE = parse(ROOT / "Dockerfile")
STAGES = DOCKERFILE.stages
IMAGES = [STAGES["server"], STAGES["sidecar"]]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

each_image = pytest.mark.parametrize("image", IMAGES, ids=lambda stage: stage.name)


def ingredients(stage: Stage) -> set[str]:
    """Returns the names of all stages that a stage is made of, its own included."""
    names = {stage.name}
    for source in [stage.base, *sources(stage)]:
        if source in STAGES:
            names |= ingredients(STAGES[source])
    return names


def sources(stage: Stage) -> list[str]:
    """Returns what a stage copies or mounts from."""
    flags = " ".join(flag for one in stage.instructions for flag in one.flags)
    return re.findall(r"\bfrom=([^,\s]+)", flags)


def test_the_planner_is_what_a_plain_build_makes() -> None:
    """The last stage, which a build without --target makes, is the server."""
    assert list(STAGES)[-1] == "server"


def test_one_argument_swaps_the_base() -> None:
    """Whatever is not made here comes from BASE_IMAGE, which is set before the first FROM."""
    outside = {stage.base for stage in STAGES.values()} - set(STAGES)
    copied = {source for stage in STAGES.values() for source in sources(stage)}

    assert outside == {"${BASE_IMAGE}"}
    assert copied <= set(STAGES)
    assert "BASE_IMAGE" in DOCKERFILE.arguments


def test_the_base_is_a_certain_one() -> None:
    """The base image carries a tag, and it is not `latest`."""
    _, _, tag = DOCKERFILE.arguments["BASE_IMAGE"].rpartition("/")[2].partition(":")

    assert tag
    assert "latest" not in (ROOT / "Dockerfile").read_text()


@each_image
def test_the_program_is_started_without_a_shell(image: Stage) -> None:
    """ENTRYPOINT and CMD are in exec form, so that SIGTERM reaches the program itself."""
    entrypoint = image.last("ENTRYPOINT").words

    assert entrypoint == ["expertplane"]
    assert entrypoint[0] in PROJECT["scripts"]
    assert image.last("CMD").words
    assert image.last("STOPSIGNAL").value == "SIGTERM"


@each_image
def test_the_user_is_a_number_above_zero(image: Stage) -> None:
    """USER is numeric, as `runAsNonRoot` demands, not root, and the last word on the matter."""
    (user,) = (one.value for one in image.lineage() if one.keyword == "USER")

    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert "RUN" not in [one.keyword for one in image.instructions[_index(image, "USER") :]]


def test_image_and_pod_run_as_the_same_user() -> None:
    """The pod's user and group are the image's, which the state directory belongs to."""
    context = pod("base")["securityContext"]

    assert STAGES["server"].last("USER").value == f"{context['runAsUser']}:{context['runAsGroup']}"


def test_health_is_asked_without_a_shell() -> None:
    """HEALTHCHECK runs a command of the program, in exec form, against the default port."""
    words = STAGES["server"].last("HEALTHCHECK").words
    assert words is not None
    program, command, *options = words
    asked = health.make_context(command, options).params

    assert program in PROJECT["scripts"]
    assert command in PROJECT["entry-points"]["expertplane.commands"]
    assert asked["address"] == ServerConfig().listen
    assert asked["service"] in NAMES


def test_the_default_command_serves() -> None:
    """The server image runs `serve`, as the pod does, and exposes its two ports."""
    server = STAGES["server"]
    defaults = ServerConfig()
    ports = [parse_address(each, "default")[1] for each in (defaults.listen, defaults.metrics)]

    assert server.last("CMD").words == [planner("base")["args"][0]]
    assert server.last("EXPOSE").value.split() == [str(port) for port in ports]


def test_what_is_written_goes_where_writing_is_allowed() -> None:
    """Compiler caches lie below /tmp, Triton's beside the store, which is where the pod has it."""
    variables = dict(STAGES["server"].pairs("ENV"))
    pods = {one["name"]: one["value"] for one in planner("base")["env"]}
    caches = {name: path for name, path in variables.items() if "_CACHE_" in name}

    assert caches.keys() == {
        "CUDA_CACHE_PATH",
        "NUMBA_CACHE_DIR",
        "TORCHINDUCTOR_CACHE_DIR",
        "TRITON_CACHE_DIR",
    }
    assert caches.pop("TRITON_CACHE_DIR").startswith("/var/lib/expertplane/")
    assert all(path.startswith("/tmp/") for path in caches.values())
    assert variables["EXPERTPLANE_SERVE_STORE"] == pods["EXPERTPLANE_SERVE_STORE"]


def test_the_image_does_not_choose_the_devices() -> None:
    """The image names what a GPU is needed for, and leaves which one to the runtime."""
    variables = STAGES["server"].pairs("ENV")

    assert variables["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert "NVIDIA_VISIBLE_DEVICES" not in variables


def test_the_sidecar_has_no_torch() -> None:
    """No stage that the sidecar is made of installs torch or the extra that needs it."""
    text = " ".join(
        one.value
        for name in ingredients(STAGES["sidecar"])
        for one in STAGES[name].instructions
        if one.keyword in {"ARG", "RUN"}
    )

    assert ".[sidecar]" in text
    assert not re.search(r"torch|\.\[server\]|\.\[planner\]", text, re.IGNORECASE)


@each_image
def test_the_image_says_what_it_is(image: Stage) -> None:
    """The labels give title, description, licence and the version of the project."""
    labels = image.pairs("LABEL")
    name = "org.opencontainers.image"

    assert labels[f"{name}.title"] == f"expertplane-{image.name}"
    assert labels[f"{name}.description"]
    assert labels[f"{name}.licenses"] == PROJECT["license"]
    assert labels[f"{name}.version"] == "${VERSION}"
    assert f"VERSION={PROJECT['version']}" in [one.value for one in image.instructions]


def test_the_guide_builds_this_release() -> None:
    """Every image that deploy/README.md names carries the version of the project."""
    guide = (ROOT / "deploy" / "README.md").read_text()
    tags = re.findall(r"expertplane-(?:server|sidecar):(\S+)", guide)

    assert set(tags) == {PROJECT["version"]}


def _index(image: Stage, keyword: str) -> int:
    return [one.keyword for one in image.instructions].index(keyword)

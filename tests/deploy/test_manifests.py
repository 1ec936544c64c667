from __future__ import annotations

import copy
import tomllib
from pathlib import PurePosixPath
from typing import Any

import pytest
from kubernetes_validate import (  # type: ignore[import-untyped]  # ships no types
    ValidationError,
    latest_version,
    validate,
)

from expertplane_server.cli import serve
from expertplane_server.config import ServerConfig, is_loopback, parse_address
from expertplane_server.rpc.health import NAMES
from expertplane_server.runtime import solver_host

from .kustomize import ROOT, TARGETS, planner, pod, render, the


OLDEST, NEWEST = "1.28", latest_version()
PREFIX = "EXPERTPLANE_SERVE_"

pytestmark = pytest.mark.parametrize("target", TARGETS)


def settings(target: str, monkeypatch: pytest.MonkeyPatch) -> ServerConfig:
    """Returns what `expertplane serve` makes of the container's arguments and environment."""
    container = planner(target)
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    command, *arguments = container["args"]
    assert command == serve.name
    context = serve.make_context(command, arguments, auto_envvar_prefix=PREFIX.rstrip("_"))
    return ServerConfig(
        **{key: value for key, value in context.params.items() if not key.startswith("log_")}
    )


def mounts(target: str) -> dict[str, dict[str, Any]]:
    """Returns the volumes by the path that they are mounted at."""
    volumes = {volume["name"]: volume for volume in pod(target)["volumes"]}
    return {
        mount["mountPath"]: volumes[mount["name"]] for mount in planner(target)["volumeMounts"]
    }


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_cluster_takes_every_object(target: str, version: str) -> None:
    """Every rendered object passes the strict schema of the oldest and the newest Kubernetes."""
    for manifest in render(target):
        validate(manifest, version, strict=True)


def test_a_misspelt_field_does_not_pass(target: str) -> None:
    """The schema check above refuses a field that Kubernetes would silently drop."""
    manifest = copy.deepcopy(the("Deployment", target))
    manifest["spec"]["template"]["spec"]["runAsNonRot"] = True

    with pytest.raises(ValidationError, match="runAsNonRot"):
        validate(manifest, NEWEST, strict=True)


def test_the_caller_chooses_the_namespace(target: str) -> None:
    """No object names a namespace."""
    assert {manifest["metadata"].get("namespace") for manifest in render(target)} == {None}


def test_one_planner_owns_the_state(target: str) -> None:
    """There is one replica, and an update stops it before it starts the next."""
    spec = the("Deployment", target)["spec"]

    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}


def test_the_pod_may_do_nothing_special(target: str) -> None:
    """The pod meets the `restricted` standard, and its root file system is read-only."""
    spec, container = pod(target), planner(target)

    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec)


def test_the_pod_gets_nothing_from_the_cluster(target: str) -> None:
    """The pod has an account of its own without a token, and no variables of other Services."""
    spec = pod(target)

    assert spec["serviceAccountName"] == the("ServiceAccount", target)["metadata"]["name"]
    assert spec["automountServiceAccountToken"] is False
    assert the("ServiceAccount", target)["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False


def test_every_variable_is_one_that_serve_reads(target: str) -> None:
    """A variable of the container stands for an option of `expertplane serve`."""
    known = set()
    for parameter in serve.params:
        own = parameter.envvar or f"{PREFIX}{parameter.name}".upper()
        known |= {own} if isinstance(own, str) else set(own)

    assert {variable["name"] for variable in planner(target)["env"]} <= known


def test_the_state_is_on_the_volume(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's file lies on the claimed volume, which one node at a time may mount."""
    claim = the("PersistentVolumeClaim", target)
    store = PurePosixPath(settings(target, monkeypatch).store_path)

    volume = mounts(target)[str(store.parent)]

    assert store.is_absolute()
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert pod(target)["securityContext"]["fsGroup"] == pod(target)["securityContext"]["runAsUser"]


def test_temporary_files_have_a_place(target: str) -> None:
    """Besides the state, only /tmp can be written to, up to a limit."""
    assert mounts(target).keys() == {"/var/lib/expertplane", "/tmp"}
    assert mounts(target)["/tmp"]["emptyDir"]["sizeLimit"]


def test_the_ports_agree(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planner, container, Service and NetworkPolicy mean the same two ports, off loopback."""
    config = settings(target, monkeypatch)
    addresses = [parse_address(one, "address") for one in (config.listen, config.metrics)]
    ports = [port for _, port in addresses]
    service, policy = the("Service", target)["spec"], the("NetworkPolicy", target)["spec"]
    open_ports = [port["port"] for rule in policy["ingress"] for port in rule["ports"]]

    assert not any(is_loopback(host) for host, _ in addresses)
    assert [port["containerPort"] for port in planner(target)["ports"]] == ports
    assert [port["name"] for port in planner(target)["ports"]] == ["grpc", "metrics"]
    assert [port["port"] for port in service["ports"]] == ports
    assert [port["targetPort"] for port in service["ports"]] == ["grpc", "metrics"]
    assert open_ports == ports


@pytest.mark.parametrize(
    ("probe", "service"),
    [("startupProbe", "liveness"), ("livenessProbe", "liveness"), ("readinessProbe", "readiness")],
)
def test_probes_ask_for_a_health_service(
    target: str, probe: str, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each probe asks the gRPC port for a service that the planner reports under that name."""
    _, port = parse_address(settings(target, monkeypatch).listen, "listen")

    assert planner(target)[probe]["grpc"] == {"port": port, "service": service}
    assert service in NAMES


def test_a_slow_start_is_not_a_failed_start(target: str) -> None:
    """The startup probe is more patient than the planner is with its own solver."""
    probe = planner(target)["startupProbe"]

    assert probe["periodSeconds"] * probe["failureThreshold"] > solver_host.LONGEST_START_S + 30


def test_the_drain_ends_before_the_kill(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delay and drain fit into the pod's grace period, with 15 s to spare."""
    config = settings(target, monkeypatch)
    worst_s = config.drain_delay_s + config.grace_s

    assert worst_s + 15 <= pod(target)["terminationGracePeriodSeconds"]


def test_only_labelled_pods_reach_the_planner(target: str) -> None:
    """The gRPC port is open to labelled pods of here and elsewhere, metrics to monitoring."""
    policy = the("NetworkPolicy", target)["spec"]
    label = {"matchLabels": {"expertplane-client": "true"}}

    clients, monitoring = (rule["from"] for rule in policy["ingress"])

    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert clients == [
        {"podSelector": label},
        {"namespaceSelector": label, "podSelector": label},
    ]
    assert monitoring == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    ]


def test_the_planner_may_only_ask_for_names(target: str) -> None:
    """All that leaves the pod is DNS, to the cluster's own resolver."""
    (rule,) = the("NetworkPolicy", target)["spec"]["egress"]

    assert {port["port"] for port in rule["ports"]} == {53}
    assert all("podSelector" in peer for peer in rule["to"])


def test_selectors_find_the_pod(target: str) -> None:
    """Deployment, Service and NetworkPolicy select the pod by labels that no release changes."""
    deployment = the("Deployment", target)["spec"]
    selector = deployment["selector"]["matchLabels"]

    assert selector.items() <= deployment["template"]["metadata"]["labels"].items()
    assert "app.kubernetes.io/version" not in selector
    assert the("Service", target)["spec"]["selector"] == selector
    assert the("NetworkPolicy", target)["spec"]["podSelector"]["matchLabels"] == selector


def test_the_release_is_named_once(target: str) -> None:
    """The image's tag and the version label are the version of the project."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    labels = [manifest["metadata"]["labels"] for manifest in render(target)]

    assert planner(target)["image"] == f"expertplane-server:{version}"
    assert {label["app.kubernetes.io/version"] for label in labels} == {version}


def test_an_overlay_picks_the_device(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU overlay asks for one GPU and insists on it; the local one stays on the CPU."""
    device = {"base": "auto", "overlays/gpu": "cuda:0", "overlays/local": "cpu"}[target]
    has_gpu = target == "overlays/gpu"

    assert settings(target, monkeypatch).device == device
    limits = planner(target)["resources"]["limits"]
    assert limits.get("nvidia.com/gpu") == ("1" if has_gpu else None)
    assert ("tolerations" in pod(target)) is has_gpu


def test_memory_is_bounded_and_cpu_is_not(target: str) -> None:
    """Requests and a memory limit are set; no CPU limit throttles the event loop."""
    resources = planner(target)["resources"]

    assert resources["requests"].keys() == {"cpu", "memory"}
    assert "memory" in resources["limits"]
    assert "cpu" not in resources["limits"]

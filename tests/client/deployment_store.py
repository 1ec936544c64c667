"""A DeploymentService for the scripted planner that remembers, and spells defaults out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpc import StatusCode

from expertplane.v1 import deployment_pb2, deployment_service_pb2 as pb
from expertplane_client.spec_document import with_defaults

from .scripted_planner import RefusedError


if TYPE_CHECKING:
    from .scripted_planner import ScriptedPlanner


DEFAULT_POLICY = "robust"


class DeploymentStore:
    """Answers calls about deployments as a planner does; etags count the changes of a spec."""

    def __init__(self, planner: ScriptedPlanner) -> None:
        self.deployments: dict[str, deployment_pb2.Deployment] = {}
        planner.answers |= {
            "CreateDeployment": self._create,
            "GetDeployment": self._get,
            "ListDeployments": self._list,
            "UpdateDeployment": self._update,
            "DeleteDeployment": self._delete,
        }

    def _create(self, request: pb.CreateDeploymentRequest) -> Any:
        self.deployments[request.name] = deployment_pb2.Deployment(
            name=request.name, spec=_full(request.spec), etag="e1", generation=1
        )
        return pb.CreateDeploymentResponse(deployment=self.deployments[request.name])

    def _get(self, request: pb.GetDeploymentRequest) -> Any:
        return pb.GetDeploymentResponse(deployment=self._find(request.name))

    def _list(self, request: pb.ListDeploymentsRequest) -> Any:
        found = [self.deployments[name] for name in sorted(self.deployments)]
        return pb.ListDeploymentsResponse(deployments=found)

    def _update(self, request: pb.UpdateDeploymentRequest) -> Any:
        found = self._find(request.name)
        if request.etag != found.etag:
            raise RefusedError(StatusCode.ABORTED, f"Expected the etag '{found.etag}'.")
        spec = _full(request.spec)
        found.generation += spec.topology != found.spec.topology
        if spec != found.spec:
            found.etag = f"e{int(found.etag[1:]) + 1}"
        found.spec.CopyFrom(spec)
        return pb.UpdateDeploymentResponse(deployment=found)

    def _delete(self, request: pb.DeleteDeploymentRequest) -> Any:
        del self.deployments[self._find(request.name).name]
        return pb.DeleteDeploymentResponse()

    def _find(self, name: str) -> deployment_pb2.Deployment:
        if name not in self.deployments:
            raise RefusedError(StatusCode.NOT_FOUND, f"Expected a deployment, got '{name}'.")
        return self.deployments[name]


def _full(spec: deployment_pb2.DeploymentSpec) -> deployment_pb2.DeploymentSpec:
    full = with_defaults(spec)
    full.policy.name = full.policy.name or DEFAULT_POLICY
    return full

"""What a planner believes about the load to come, for heat maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import ProtocolError
from .plan import MAX_LAYERS, MAX_LOGICAL_EXPERTS
from .tensors import from_tensor


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from expertplane.v1 import deployment_service_pb2 as deployments_pb2

MAX_RANKS = 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadForecast:
    """The forecast that the next plan would be made for. Arrays are read-only."""

    mean: NDArray[Any] | None
    """[num_layers, num_logical_experts] float32, tokens a sample; None before the first window."""

    standard_deviation: NDArray[Any] | None
    """[num_layers, num_logical_experts] float32, tokens a sample; None where not told."""

    rank_load: NDArray[Any] | None
    """[num_layers, num_ranks] float32, tokens a sample under the committed plan; None where not
    told."""

    num_windows: int
    """Windows of load that the forecast has seen."""

    @classmethod
    def from_message(cls, message: deployments_pb2.GetLoadResponse) -> LoadForecast:
        """Returns the forecast that an answer carries.

        Raises:
            ProtocolError: a tensor breaks the contract, or they are not about the same layers and
                experts.
        """
        mean = _map_of(message, "mean", MAX_LOGICAL_EXPERTS)
        deviation = _map_of(message, "standard_deviation", MAX_LOGICAL_EXPERTS)
        rank_load = _map_of(message, "rank_load", MAX_RANKS)
        if mean is not None:
            if deviation is not None and deviation.shape != mean.shape:
                raise ProtocolError(
                    f"Expected standard_deviation of shape {list(mean.shape)} like mean, "
                    f"got {list(deviation.shape)}."
                )
            if rank_load is not None and len(rank_load) != len(mean):
                raise ProtocolError(
                    f"Expected rank_load of {len(mean)} layers like mean, got {len(rank_load)}."
                )
        return cls(
            mean=mean,
            standard_deviation=deviation,
            rank_load=rank_load,
            num_windows=message.num_windows,
        )


def _map_of(
    message: deployments_pb2.GetLoadResponse, field: str, max_columns: int
) -> NDArray[Any] | None:
    if not message.HasField(field):
        return None
    return from_tensor(getattr(message, field), field=field, max_shape=(MAX_LAYERS, max_columns))

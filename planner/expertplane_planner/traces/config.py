"""What a synthetic trace looks like: dimensions, skew, noise and drift, with units and reasons."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from expertplane_planner.errors import InvalidInputError


if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceConfig:
    """Parameters of `SyntheticTrace`; defaults are fitted to recorded GLM-5.2 load.

    All spreads are standard deviations of natural logarithms of an expert's share of its layer.

    Raises:
        InvalidInputError: A parameter leaves its range; the field is `trace.<parameter>`.
    """

    num_layers: int
    """MoE layers, 1 to 256."""

    num_logical_experts: int
    """Logical experts per layer, 1 to 4096."""

    top_k: int
    """Experts per token. No expert can carry more than 1/top_k of its layer's load."""

    domain_sds: tuple[float, ...] = (0.34, 0.41, 0.47, 0.54, 0.61, 0.67, 0.74, 0.81, 0.87, 0.94)
    """Spread of each traffic domain around the shared profile; web is flat, books are narrow."""

    base_sd: float = 0.32
    """Spread of the profile that all domains share."""

    cold_fraction: float = 0.04
    """Share of experts that are much colder than the body in every domain, as recorded."""

    cold_shift: float = 1.2
    """How much colder those are, as a positive log difference: 1.2 is a factor 3.3."""

    tail_dof: float = 12.0
    """Degrees of freedom of the Student-t profile of a domain; small is heavy-tailed. Above 2."""

    layer_sd: float = 0.20
    """Spread of a layer's skew, drawn anew per domain: layers skewed in one are not in another."""

    num_expert_groups: int = 1
    """Routing groups of consecutive experts that run hot together; 1 is none."""

    group_sd: float = 0.0
    """Spread of an expert group's common factor, half its variance shared by all domains."""

    num_requests: int = 256
    """Independent requests behind one sample. They set the noise, the tokens hardly do."""

    request_cv: float = 0.85
    """Relative spread of an expert's share between requests; a sample's is cv / sqrt(requests)."""

    tokens_per_sample: int = 8192
    """Tokens routed during one sample; each counts top_k times in every layer."""

    samples_per_mix_step: int = 16
    """Samples after which the traffic mix takes its next step of drift."""

    mix_rho: float = 0.95
    """Persistence of the mix per step, AR(1) on logits, in [0, 1). Assumed: no series is known."""

    mix_sd: float = 1.0
    """Stationary spread of the mix's logits; 0 keeps all domains equally busy."""

    mix_jitter: float = 0.3
    """Spread of the logits from sample to sample on top of the drift."""

    def __post_init__(self) -> None:
        _check_range(self, "num_layers", 1, 256)
        _check_range(self, "num_logical_experts", 1, 4096)
        _check_range(self, "top_k", 1, self.num_logical_experts)
        _check_range(self, "cold_fraction", 0.0, 1.0)
        _check_range(self, "num_expert_groups", 1, self.num_logical_experts)
        _check_range(self, "num_requests", 1, 2**31)
        _check_range(
            self, "request_cv", 0.01, 3.0
        )  # measured .4 to 2.1; far above, shares underflow
        _check_range(self, "tokens_per_sample", 1, 2**40)
        _check_range(self, "samples_per_mix_step", 1, 2**31)
        _check_range(self, "mix_rho", 0.0, 1.0)
        _check_range(self, "tail_dof", 2.0, 1e6)
        for name in ("base_sd", "cold_shift", "layer_sd", "group_sd", "mix_sd", "mix_jitter"):
            _check_range(self, name, 0.0, 10.0)
        if not self.domain_sds or not all(0.0 <= sd <= 10.0 for sd in self.domain_sds):
            raise InvalidInputError(
                "trace.domain_sds",
                f"Expected at least one domain, spreads in [0, 10], got {self.domain_sds}.",
            )
        if self.mix_rho == 1.0:
            raise InvalidInputError("trace.mix_rho", "Expected mix_rho below 1, got 1.0.")
        if self.tail_dof == 2.0:  # the variance of Student's t exists above 2 only
            raise InvalidInputError("trace.tail_dof", "Expected tail_dof above 2, got 2.0.")
        if self.num_logical_experts % self.num_expert_groups:
            raise InvalidInputError(
                "trace.num_expert_groups",
                "Expected num_logical_experts to be a multiple of num_expert_groups, "
                f"got {self.num_logical_experts} and {self.num_expert_groups}.",
            )

    @property
    def num_domains(self) -> int:
        """Traffic domains of the mix."""
        return len(self.domain_sds)


def _check_range(config: TraceConfig, name: str, lowest: float, highest: float) -> None:
    value = getattr(config, name)
    if not (math.isfinite(value) and lowest <= value <= highest):
        raise InvalidInputError(
            f"trace.{name}", f"Expected {name} in [{lowest}, {highest}], got {value}."
        )


PRESETS: Mapping[str, TraceConfig] = MappingProxyType(
    {
        # DeepSeek-V3: experts of one routing group run hot together, without which a contiguous
        # placement comes out far too balanced. The groups carry part of the skew, so the domains
        # carry less: the narrowest has the skew recorded for a single task.
        "dsv3": TraceConfig(
            num_layers=58,
            num_logical_experts=256,
            top_k=8,
            domain_sds=(0.34, 0.38, 0.42, 0.46, 0.50, 0.54, 0.58, 0.62, 0.66, 0.70),
            num_expert_groups=8,
            group_sd=0.42,
        ),
        # GLM-5.2: no trace of routing groups in the recording.
        "glm52": TraceConfig(num_layers=75, num_logical_experts=256, top_k=8),
    }
)
"""Ready-made configurations by model name."""

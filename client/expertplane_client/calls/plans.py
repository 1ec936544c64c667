"""The calls of PlanService that only read, described."""

from __future__ import annotations

from expertplane.v1 import decision_pb2, plan_pb2, plan_service_pb2 as pb
from expertplane_client.errors import InputError
from expertplane_client.names import check_deployment
from expertplane_client.plan import Plan
from expertplane_client.plan_diff import PlanDiff

from .base import (
    PAGE_SIZE,
    PLANS,
    READ_TIMEOUT_S,
    Call,
    Flow,
    Page,
    all_pages,
    check_version,
)


_ALIASES = {
    "committed": pb.PLAN_ALIAS_COMMITTED,
    "latest": pb.PLAN_ALIAS_LATEST,
}


def get_plan(
    deployment: str, version: int | None = None, *, alias: str | None = None
) -> Call[Plan]:
    """Describes GetPlan; see `Client.get_plan`."""
    request = pb.GetPlanRequest(deployment=check_deployment(deployment), omit_derived_maps=True)
    if version is not None and alias is not None:
        raise InputError(f"Expected a version or an alias, got both: {version} and {alias!r}.")
    if version is not None:
        request.version = check_version("version", version)
    else:
        name = "committed" if alias is None else alias
        if name not in _ALIASES:
            raise InputError(f"Expected alias to be one of {', '.join(_ALIASES)}, got {name!r}.")
        request.alias = _ALIASES[name]
    return Call(
        method=f"{PLANS}/GetPlan",
        request=request,
        response_class=pb.GetPlanResponse,
        parse=lambda answer: Plan.from_message(answer.plan),
        timeout_s=READ_TIMEOUT_S,
        is_read=True,
    )


def list_plans(deployment: str, *, limit: int | None = None) -> Flow[list[plan_pb2.PlanMetadata]]:
    """Describes ListPlans, over as many pages as it takes; see `Client.list_plans`."""
    name = check_deployment(deployment)

    def page(token: str) -> Call[Page[plan_pb2.PlanMetadata]]:
        return Call(
            method=f"{PLANS}/ListPlans",
            request=pb.ListPlansRequest(
                deployment=name, page_size=min(limit or PAGE_SIZE, PAGE_SIZE), page_token=token
            ),
            response_class=pb.ListPlansResponse,
            parse=lambda answer: Page(tuple(answer.plans), answer.next_page_token),
            timeout_s=READ_TIMEOUT_S,
            is_read=True,
        )

    return all_pages(page, limit)


def diff_plans(deployment: str, from_version: int, to_version: int) -> Call[PlanDiff]:
    """Describes DiffPlans; see `Client.diff_plans`."""
    return Call(
        method=f"{PLANS}/DiffPlans",
        request=pb.DiffPlansRequest(
            deployment=check_deployment(deployment),
            from_version=check_version("from_version", from_version),
            to_version=check_version("to_version", to_version),
        ),
        response_class=pb.DiffPlansResponse,
        parse=PlanDiff.from_message,
        timeout_s=READ_TIMEOUT_S,
        is_read=True,
    )


def explain_decisions(
    deployment: str, *, after_sequence: int = 0, limit: int = 100
) -> Call[list[decision_pb2.Decision]]:
    """Describes ExplainDecisions; see `Client.explain_decisions`."""
    return Call(
        method=f"{PLANS}/ExplainDecisions",
        request=pb.ExplainDecisionsRequest(
            deployment=check_deployment(deployment), after_sequence=after_sequence, limit=limit
        ),
        response_class=pb.ExplainDecisionsResponse,
        parse=lambda answer: list(answer.decisions),
        timeout_s=READ_TIMEOUT_S,
        is_read=True,
    )

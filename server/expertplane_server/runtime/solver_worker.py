"""The solver process: it owns the device, takes one job at a time, and dies with its parent.

It alone imports torch, so that neither a long solve nor a broken device can hold up the service.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import torch

from expertplane_planner import (
    ExpertLoad,
    InvalidInputError,
    Mode,
    Placement,
    Topology,
    policy_names,
    solve,
    warm_up,
)
from expertplane_planner.balance import rank_load, step_report
from expertplane_server.core import spec as core
from expertplane_server.core.plan import Balance, Evaluation, Solution
from expertplane_server.runtime.jobs import Answer, Failure, Ready, Rejection, Reply, SolveJob


if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_KEEP_BACK_FROM = 8
"""Samples below which keeping some back would cost the plan more than the honesty is worth."""


def main(connection: Connection, device: str, num_threads: int) -> None:
    """Serves jobs until the other end of the connection is gone.

    Args:
        connection: jobs in, replies out.
        device: "auto", "cpu" or "cuda:N".
        num_threads: CPU threads to plan with.
    """
    # A solve has time; the event loop of the service has none.
    os.nice(10)
    torch.set_num_threads(num_threads)
    try:
        torch_device = _pick_device(device)
        warm_up(torch_device)
    except InvalidInputError as error:
        connection.send(Failure(str(error)))
        return
    connection.send(
        Ready(
            device=str(torch_device),
            torch_version=torch.__version__,
            policies=tuple(policy_names()),
        )
    )
    while True:
        try:
            job = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(_reply(job, torch_device))


def _pick_device(device: str) -> torch.device:
    """Returns the device to plan on; "auto" takes the first CUDA device, else the CPU."""
    if device != "auto":
        return torch.device(device)
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def _reply(job: SolveJob, device: torch.device) -> Reply:
    """Returns the reply to one job; nothing that a job does ends the process."""
    try:
        return Answer(run(job, device))
    except InvalidInputError as error:
        return Rejection(field=error.field, message=str(error))
    except Exception as error:
        return Failure(f"{type(error).__name__}: {error}")


def run(job: SolveJob, device: torch.device) -> Solution:
    """Solves one job and measures the answer.

    Raises:
        InvalidInputError: the job breaks a rule of the planner.
    """
    start_s = time.perf_counter()
    samples = torch.from_numpy(job.samples.copy())
    is_kept_back = torch.zeros(len(samples), dtype=torch.bool)
    if job.keeps_back and len(samples) >= _KEEP_BACK_FROM:
        is_kept_back[3::4] = True
    topology = Topology(
        num_nodes=job.topology.num_nodes,
        num_ranks=job.topology.num_ranks,
        num_slots=job.topology.num_slots,
    )
    plan = solve(
        ExpertLoad(samples[~is_kept_back]),
        topology,
        num_expert_groups=job.num_expert_groups,
        mode=Mode(job.policy.mode),
        policy=job.policy.name,
        spill=job.policy.spill,
        seed=job.policy.seed,
        device=device,
    )
    has_kept_back = bool(is_kept_back.any())
    judged = samples[is_kept_back] if has_kept_back else samples
    # Without an incumbent the answer is about the load as a whole, as its sender summed it.
    judged = judged if job.incumbent is not None else judged.sum(dim=0, keepdim=True)
    maximum, balance = _measure(plan.placement, judged)
    gain, before, moved_slots = 0.0, None, 0
    if job.incumbent is not None:
        phy2log = torch.from_numpy(job.incumbent.astype("int64")).to(plan.placement.phy2log.device)
        incumbent = Placement(phy2log, plan.placement.num_logical_experts, topology)
        maximum_before, before = _measure(incumbent, judged)
        gain = 1.0 - maximum / maximum_before if maximum_before > 0 else 0.0
        moved_slots = int(plan.placement.moved_slots(incumbent).sum())
    return Solution(
        phy2log=plan.placement.phy2log.to("cpu", torch.int32).numpy(),
        digest=plan.digest,
        policy=plan.policy,
        mode=core.Mode(plan.mode),
        seed=plan.seed,
        num_logical_experts=plan.placement.num_logical_experts,
        balance=balance,
        balance_before=before,
        gain=gain,
        moved_slots=moved_slots,
        evaluation=Evaluation.HELD_OUT if has_kept_back else Evaluation.IN_SAMPLE,
        solve_s=time.perf_counter() - start_s,
        spill=plan.spill,
    )


def _measure(placement: Placement, samples: torch.Tensor) -> tuple[float, Balance]:
    """Returns the summed maximum rank load, in tokens, and the balance, sample by sample."""
    tokens = rank_load(placement, samples)
    found = step_report(tokens)
    balance = Balance(
        balancedness=found.balancedness,
        mean=found.mean,
        minimum=found.minimum,
        per_layer=found.per_layer,
    )
    return float(tokens.amax(dim=-1).sum()), balance

"""From reports to plans, as conversations."""

from __future__ import annotations

import numpy as np
import pytest

from expertplane_server.core import effects as fx, events as ev
from expertplane_server.core.plan import Necessity, PlanRef, PlanState, Reason
from expertplane_server.core.spec import PolicyChoice, RolloutMode

from .. import builders
from .script import Conversation


def test_from_report_to_commit() -> None:
    """A plan is durable before it is announced, and announced before it is sent."""
    talk = Conversation(builders.group())
    plan = builders.plan()
    talk.tell(builders.hello(1))

    assert talk.tell(builders.report(sequence=5)) == [
        "1 < ack 5",
        "sample accepted",
        "solve 1 of 1 samples",
    ]
    assert talk.tell(ev.Solved(solve=1, solution=plan.draft.solution)) == ["store on v0"]
    assert talk.tell(ev.Stored(plan=plan)) == [
        "record PUBLISHED v1",
        "announce v1",
        "1 < commit v1",
    ]
    assert talk.tell(builders.applied(plan)) == ["applied v1"]


def test_window_gathers() -> None:
    """A window of three samples asks for a solve with the third."""
    talk = Conversation(builders.group(wanted=builders.spec(window_samples=3)))
    talk.tell(builders.hello(1), builders.report(first_step=0), builders.report(first_step=1))

    lines = talk.tell(builders.report(first_step=2))
    assert lines == ["1 < ack 1", "sample accepted", "solve 1 of 3 samples"]


def test_solve_gets_samples_and_incumbent() -> None:
    """The solver gets the window's samples in order and the placement in force."""
    group = builders.group(wanted=builders.spec(window_samples=2))
    group.handle(builders.hello(1), builders.at())
    effects = group.handle(builders.report((1, 2, 3, 4), (5, 6, 7, 8)), builders.at())
    (solve,) = [effect for effect in effects if isinstance(effect, fx.Solve)]

    assert np.stack(solve.samples).tolist() == [[[1, 2, 3, 4]], [[5, 6, 7, 8]]]
    assert solve.incumbent.tolist() == [[0, 1, 2, 3]]


def test_incumbent_is_the_committed_plan() -> None:
    """Once there is a plan, candidates are compared with it."""
    group = builders.group(builders.plan((3, 1, 2, 0)))
    group.handle(
        builders.hello(1, applied=builders.ref(builders.plan((3, 1, 2, 0)))), builders.at()
    )
    effects = group.handle(builders.report(), builders.at())
    (solve,) = [effect for effect in effects if isinstance(effect, fx.Solve)]

    assert solve.incumbent.tolist() == [[3, 1, 2, 0]]


def test_incumbent_is_the_start_placement_of_the_engine() -> None:
    """Before the first plan, candidates are compared with what the engine started with."""
    group = builders.group()
    group.handle(builders.hello(1, initial_phy2log=np.array([[3, 2, 1, 0]])), builders.at())
    effects = group.handle(builders.report(), builders.at())
    (solve,) = [effect for effect in effects if isinstance(effect, fx.Solve)]

    assert solve.incumbent.tolist() == [[3, 2, 1, 0]]


def test_two_members() -> None:
    """A sample waits for both members, and the plan goes to both."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1, "a", (0,)), builders.hello(2, "b", (1,)))

    assert talk.tell(builders.report(stream=1, sequence=1)) == ["1 < ack 1"]
    assert talk.tell(builders.report(stream=2, sequence=8)) == [
        "2 < ack 8",
        "sample accepted",
        "solve 1 of 1 samples",
    ]
    talk.tell(ev.Solved(solve=1, solution=builders.solution()))
    assert talk.tell(ev.Stored(plan=builders.plan())) == [
        "record PUBLISHED v1",
        "announce v1",
        "1 < commit v1",
        "2 < commit v1",
    ]


def test_applied_by_all_is_stored_once() -> None:
    """The plan is applied when the last member says so, and that is stored once."""
    talk = Conversation(builders.group())
    plan = builders.plan()
    talk.tell(builders.hello(1, "a", (0,)), builders.hello(2, "b", (1,)))
    talk.publish(plan)

    assert talk.tell(builders.applied(plan, stream=1)) == []
    assert talk.tell(builders.applied(plan, stream=2)) == ["applied v1"]
    assert talk.tell(builders.applied(plan, stream=2)) == []
    assert talk.tell(ev.Heartbeat(stream=1, applied=builders.ref(plan))) == []


def test_member_that_leaves_no_longer_holds_the_roll_out_up() -> None:
    """When the last member without the plan goes, the plan is applied by all."""
    talk = Conversation(builders.group())
    plan = builders.plan()
    talk.tell(builders.hello(1, "a", (0,)), builders.hello(2, "b", (1,)))
    talk.publish(plan)
    talk.tell(builders.applied(plan, stream=1))

    assert talk.tell(ev.StreamEnded(stream=2, is_goodbye=False)) == ["applied v1"]


def test_store_failure_shows_nothing() -> None:
    """A plan that could not be stored reaches nobody; the next window tries again."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1), builders.report())
    talk.tell(ev.Solved(solve=1, solution=builders.solution()))

    assert talk.tell(builders.store_failed()) == ["read back"]
    assert talk.tell(builders.read_back()) == ["record FAILED_STORE"]
    assert talk.group.deployment.committed == 0
    assert talk.tell(builders.report(first_step=1, sequence=2)) == [
        "1 < ack 2",
        "sample accepted",
        "solve 2 of 1 samples",
    ]


def test_solve_failure() -> None:
    """A failed solve is a decision; the next window tries again."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1), builders.report())

    assert talk.tell(ev.SolveFailed(solve=1, message="lost")) == ["record FAILED_SOLVE"]
    assert talk.tell(builders.report(first_step=1))[-1] == "solve 2 of 1 samples"


@pytest.mark.parametrize(("min_gain", "gain"), [(0.1, 0.09), (0.1, 0.1), (0.0, 0.0), (0.0, -0.1)])
def test_gain_too_small(min_gain: float, gain: float) -> None:
    """A plan that does not pass min_gain, or gains nothing at all, is not published."""
    talk = Conversation(builders.group(wanted=builders.spec(min_gain=min_gain)))
    talk.tell(builders.hello(1), builders.report())

    lines = talk.tell(ev.Solved(solve=1, solution=builders.solution(gain=gain)))
    assert lines == ["record SKIPPED_GAIN_TOO_SMALL"]


def test_migration_too_dear() -> None:
    """A plan that does not pay for its migration is not published."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1), builders.report())

    solution = builders.solution(gain_s=7.0, cost_s=3.5)
    assert talk.tell(ev.Solved(solve=1, solution=solution)) == [
        "record SKIPPED_MIGRATION_TOO_DEAR"
    ]
    latest = talk.group.journal.latest
    assert latest is not None
    assert latest.message == (
        "The predicted gain is +25.00% (0.600 to 0.800) for 2 moved slots: 7 s over the "
        "horizon, not above 2 times the 3.5 s that the migration takes away."
    )


def test_migration_that_pays() -> None:
    """A plan that gains more than its cost times the safety factor is published, and says so."""
    talk = Conversation(builders.group(wanted=builders.spec(safety=1.5)))
    talk.tell(builders.hello(1), builders.report())

    solution = builders.solution(gain_s=7.0, cost_s=4.6)
    assert talk.tell(ev.Solved(solve=1, solution=solution)) == ["store on v0"]
    talk.tell(ev.Stored(plan=builders.plan()))
    latest = talk.group.journal.latest
    assert latest is not None
    assert (latest.gain, latest.gain_s, latest.cost_s) == (0.25, 7.0, 4.6)
    assert latest.message.endswith("for 2 moved slots, 7 s against 4.6 s of migration.")


@pytest.mark.parametrize(
    ("necessity", "why"),
    [
        (Necessity.LOST_EXPERTS, "has lost experts"),
        (Necessity.ENGINE_RULES, "breaks a rule of the engine"),
        (Necessity.MODE, "breaks the mode"),
    ],
)
@pytest.mark.parametrize(
    ("budget", "beyond"),
    [(None, ""), (2, ""), (1, ", up to 2 in a layer, beyond the budget of 1")],
)
@pytest.mark.parametrize("mode", list(RolloutMode))
def test_what_cannot_stay(
    necessity: Necessity, why: str, budget: int | None, beyond: str, mode: RolloutMode
) -> None:
    """Neither gain nor cost nor budget keeps a placement in force that cannot serve."""
    wanted = builders.spec(policy=PolicyChoice(max_moved_slots=budget), rollout_mode=mode)
    talk = Conversation(builders.group(wanted=wanted))
    talk.tell(builders.hello(1, ranks=(0, 1)), builders.report())
    solution = builders.solution(
        gain=-0.5, cost_s=100.0, necessity=necessity, has_incumbent=False, is_drifting=True
    )
    lines = talk.tell(ev.Solved(solve=1, solution=solution))
    if mode is not RolloutMode.SHADOW:
        is_staging = mode is RolloutMode.COORDINATED
        assert lines == [f"store on v0{' staging' * is_staging}"]
        state = PlanState.STAGING if is_staging else PlanState.COMMITTED
        talk.tell(ev.Stored(plan=builders.plan(state=state)))
    latest = talk.group.journal.latest

    assert latest is not None
    end = "; shadow mode publishes nothing." if mode is RolloutMode.SHADOW else "."
    assert latest.message.startswith(
        f"The placement in force {why}. Its successor moves 2 slots{beyond}{end} The window"
    )


@pytest.mark.parametrize("gain", [0.25, -0.25])
def test_drift_is_told(gain: float) -> None:
    """A decision on a window that departed from its forecast says so, published or not."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1), builders.report())
    solution = builders.solution(gain=gain, is_drifting=True)
    if talk.tell(ev.Solved(solve=1, solution=solution)) == ["store on v0"]:
        talk.tell(ev.Stored(plan=builders.plan()))
    latest = talk.group.journal.latest

    assert latest is not None
    assert latest.message.endswith("The window departed from its forecast far more than usual.")


def test_every_window_is_learned_once() -> None:
    """A skipped window goes to the forecast behind its decision, any other with its solve."""
    wanted = builders.spec(window_samples=2, min_samples=2, max_window_s=60.0)
    talk = Conversation(builders.group(wanted=wanted))
    talk.tell(builders.hello(1), builders.report((1, 2, 3, 4), (4, 3, 2, 1)))

    lines = talk.tell(builders.report((5, 6, 7, 8), (8, 7, 6, 5), first_step=2))
    assert lines[-2:] == ["record SKIPPED_ROLLOUT_IN_FLIGHT", "learn 2 samples"]
    assert talk.tell(ev.SolveFailed(solve=1, message="lost")) == ["record FAILED_SOLVE"]
    talk.tell(builders.report((1, 1, 1, 1), first_step=4))
    talk.now_s = 60.0
    assert talk.tell(ev.Tick())[:2] == ["record SKIPPED_FEW_SAMPLES", "learn 1 samples"]


def test_shadow() -> None:
    """In shadow mode a plan that is worth it is recorded and neither stored nor sent."""
    talk = Conversation(builders.group(wanted=builders.spec(rollout_mode=RolloutMode.SHADOW)))
    talk.tell(builders.hello(1), builders.report())

    assert talk.tell(ev.Solved(solve=1, solution=builders.solution())) == ["record SHADOW"]


def test_cooldown() -> None:
    """A window within the cool-down is skipped without a solve, one after it is not."""
    talk = Conversation(builders.group(wanted=builders.spec(cooldown_s=60.0)))
    plan = builders.plan()
    talk.tell(builders.hello(1))
    talk.publish(plan)
    talk.tell(builders.applied(plan))

    talk.now_s = 59.0
    assert talk.tell(builders.report(first_step=1))[-2] == "record SKIPPED_COOLDOWN"
    talk.now_s = 60.0
    assert talk.tell(builders.report(first_step=2))[-1] == "solve 2 of 1 samples"


def test_few_samples() -> None:
    """A window that time closes with fewer than min_samples is skipped."""
    wanted = builders.spec(window_samples=3, min_samples=2, max_window_s=60.0)
    talk = Conversation(builders.group(wanted=wanted))
    talk.tell(builders.hello(1), builders.report())

    talk.now_s = 58.0
    talk.tell(ev.Heartbeat(stream=1, applied=PlanRef()))
    assert "record SKIPPED_FEW_SAMPLES" not in talk.wait(1.9)
    assert "record SKIPPED_FEW_SAMPLES" in talk.wait(0.1)


def test_empty_window_never_closes() -> None:
    """Without samples there is nothing to decide on, however long it takes."""
    talk = Conversation(builders.group())

    assert talk.wait(100_000.0) == []


def test_roll_out_in_flight() -> None:
    """While a member has not applied the committed plan, windows are skipped."""
    talk = Conversation(builders.group())
    plan = builders.plan()
    talk.tell(builders.hello(1))
    talk.publish(plan)

    lines = talk.tell(builders.report(first_step=1))
    assert lines[-2:] == ["record SKIPPED_ROLLOUT_IN_FLIGHT", "learn 1 samples"]
    talk.tell(builders.applied(plan))
    assert talk.tell(builders.report(first_step=2))[-1] == "solve 2 of 1 samples"


def test_solve_in_flight() -> None:
    """A window that closes during a solve, or a store, is skipped."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1), builders.report(first_step=0))

    skipped = ["record SKIPPED_ROLLOUT_IN_FLIGHT", "learn 1 samples"]
    assert talk.tell(builders.report(first_step=1))[-2:] == skipped
    talk.tell(ev.Solved(solve=1, solution=builders.solution()))
    assert talk.tell(builders.report(first_step=2))[-2:] == skipped


@pytest.mark.parametrize(
    "answer",
    [
        ev.Solved(solve=2, solution=builders.solution()),
        ev.SolveFailed(solve=2, message="lost"),
        ev.Solved(solve=0, solution=builders.solution()),
    ],
)
def test_unknown_answer_of_the_solver(answer: ev.Event) -> None:
    """An answer to another solve than the one under way is ignored."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1), builders.report())

    assert talk.tell(answer) == []
    assert talk.tell(ev.Solved(solve=1, solution=builders.solution())) == ["store on v0"]


@pytest.mark.parametrize(
    "answer",
    [
        ev.Solved(solve=1, solution=builders.solution()),
        ev.SolveFailed(solve=1, message="lost"),
    ],
)
def test_late_answer_of_the_solver(answer: ev.Event) -> None:
    """A second answer to a solve is ignored."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1), builders.report(), ev.SolveFailed(solve=1, message="lost"))

    assert talk.tell(answer) == []


def test_idle_is_recorded_once() -> None:
    """Idle samples never ask for a solve; a stretch of them is one decision."""
    talk = Conversation(builders.group())
    idle = (0.0, 0.0, 0.0, 0.0)
    talk.tell(builders.hello(1))

    assert talk.tell(builders.report(idle, first_step=0)) == [
        "1 < ack 1",
        "sample dropped_idle",
        "record SKIPPED_ZERO_LOAD",
    ]
    assert talk.tell(builders.report(idle, first_step=1)) == ["1 < ack 1", "sample dropped_idle"]


def test_idle_ends() -> None:
    """After load has come again, another idle stretch is another decision."""
    talk = Conversation(builders.group())
    idle = (0.0, 0.0, 0.0, 0.0)
    talk.tell(builders.hello(1), builders.report(idle, first_step=0))
    talk.tell(builders.report(first_step=1), ev.SolveFailed(solve=1, message="lost"))

    assert talk.tell(builders.report(idle, first_step=2))[-1] == "record SKIPPED_ZERO_LOAD"


def test_journal_is_bounded() -> None:
    """The journal keeps the latest thousand decisions and goes on counting."""
    talk = Conversation(builders.group())
    talk.tell(builders.hello(1))
    for number in range(1, 1003):
        talk.tell(builders.report(first_step=number), ev.SolveFailed(solve=number, message="lost"))
    decisions = talk.group.journal.after(0, 2000)

    assert [decisions[0].sequence, decisions[-1].sequence] == [3, 1002]
    assert [each.sequence for each in talk.group.journal.after(0, 2)] == [1001, 1002]


def test_decision_carries_its_numbers() -> None:
    """A decision names epoch, samples, incumbent, plan and the solver's figures."""
    group = builders.group()
    group.handle(builders.hello(1), builders.at(5))
    group.handle(builders.report(), builders.at(5))
    group.handle(ev.Solved(solve=1, solution=builders.solution()), builders.at(6))
    group.handle(ev.Stored(plan=builders.plan()), builders.at(7))
    decision = group.journal.latest

    assert decision is not None
    assert (decision.sequence, decision.epoch, decision.reason) == (1, 1, Reason.PUBLISHED)
    assert (decision.num_samples, decision.incumbent, decision.plan_version) == (1, 0, 1)
    assert decision.decided_at_s == 1006
    assert decision.message == "The predicted gain is +25.00% (0.600 to 0.800) for 2 moved slots."

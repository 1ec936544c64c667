"""Kernels for CUDA, in Triton's interpreter: to the bit what the other legs give, no races."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from expertplane_planner import ExpertLoad, Mode, Topology, get_policy, kernels, solve
from expertplane_planner.kernels import Starts, numba_cpu, numba_risk, torch_risk
from expertplane_planner.stages.fill import (
    Uncertainty,
    diverse_starts,
    fill_by_risk,
    fill_distinct,
)
from expertplane_planner.stages.replicate import max_copies

from ...support import instances
from ...support.triton_races import RaceError, races
from .legs import interprets_triton


if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from expertplane_planner import Plan


pytestmark = interprets_triton

FEW = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def on_triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the CPU pass for a CUDA device, and watch for races."""
    from expertplane_planner.kernels import triton_gpu

    monkeypatch.setattr(kernels, "has_triton", lambda device: True)
    monkeypatch.setattr(kernels, "_HAS_NUMBA", False)
    monkeypatch.setattr(triton_gpu, "num_concurrent", lambda *_: 1)
    with races():
        yield


@st.composite
def _packings(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    """Draw weights, kinds and a number of packs; many ties, and copies that must share a pack."""
    num_packs = draw(st.integers(1, 4))
    rows = draw(instances.rows(multiple_of=num_packs))[:2]
    kind = draw(instances.kinds(len(rows), len(rows[0])))
    return torch.tensor(rows, dtype=torch.float64), torch.tensor(kind), num_packs


@FEW
@given(_packings(), st.sampled_from([0, 1, 6]), st.sampled_from([0.0, 1e-5, 0.1]))
def test_packs_as_the_compiled_loops_do(
    packing: tuple[Tensor, Tensor, int], max_swaps: int, tolerance: float
) -> None:
    """Whatever weights and kinds: the same item in the same place."""
    from expertplane_planner.kernels import triton_gpu

    weight, kind, num_packs = packing
    order = weight.argsort(dim=1, descending=True, stable=True)
    search: dict[str, Any] = {"max_swaps": max_swaps, "tolerance": tolerance}

    with races():
        found = triton_gpu.pack_distinct(weight, kind, order, num_packs, **search)

    assert torch.equal(found, numba_cpu.pack_distinct(weight, kind, order, num_packs, **search))


@st.composite
def _fillings(draw: st.DrawFn) -> tuple[Tensor, Tensor, int, int]:
    """Draw weights and experts of rows, slots and packs of each."""
    num_packs, capacity = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    num_slots = num_packs * capacity
    num_items = draw(st.integers(1, num_slots))
    num_rows = draw(st.integers(1, 2))
    amount = st.integers(0, 3) | st.integers(0, 2000)
    row = st.lists(amount.map(float), min_size=num_items, max_size=num_items)
    weight = draw(st.lists(row, min_size=num_rows, max_size=num_rows))
    expert = [draw(st.permutations(range(num_items))) for _ in range(num_rows)]
    return torch.tensor(weight).double(), torch.tensor(expert), num_slots, num_packs


@FEW
@given(_fillings())
def test_one_launch_replicates_and_packs(
    on_triton: None, filling: tuple[Tensor, Tensor, int, int]
) -> None:
    """As the two stages do one after the other."""
    weight, expert, num_slots, num_packs = filling
    most = max_copies(weight.shape[1], num_slots, num_packs)
    search: dict[str, Any] = {"max_count": most, "max_swaps": 6, "tolerance": 1e-5}

    found = fill_distinct(weight, expert, num_slots, num_packs, **search)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "has_triton", lambda device: False)
        expected = fill_distinct(weight, expert, num_slots, num_packs, **search)

    assert torch.equal(found, expected)


def _uncertainty(seed: int, num_layers: int, num_experts: int, dtype: torch.dtype) -> Uncertainty:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.rand(num_layers, num_experts, generator=generator, dtype=torch.float64) ** 3
    factor = torch.randn(num_layers, num_experts, 3, generator=generator, dtype=torch.float64)
    spread = torch.diag_embed(0.1 * mean)
    return Uncertainty(mean, (0.05 * factor @ factor.mT + spread).to(dtype))


@pytest.mark.parametrize(
    ("seed", "num_starts", "nodes"), [(0, 1, 1), (1, 1, 2), (2, 3, 1), (3, 2, 2), (5, 1, 1)]
)
def test_one_launch_fills_by_risk(on_triton: None, seed: int, num_starts: int, nodes: int) -> None:
    """Replicas, packings from each start, swaps and the choice are those of the other legs."""
    dtype = torch.float32 if seed % 2 else torch.float64
    known = _uncertainty(seed, 2, 6 * nodes, dtype)
    generator = torch.Generator().manual_seed(seed)
    expert = torch.stack([torch.randperm(6 * nodes, generator=generator) for _ in range(2)])
    expert = expert.view(2 * nodes, 6)
    weight = known.mean.view(2 * nodes, 6) + 0.5
    slowness = 1.0 + (seed % 3) * torch.rand(2 * nodes, 4, generator=generator).double()
    starts = diverse_starts(num_starts, 12, risk=1.5, spread=0.4, seed=seed, like=weight)
    search: dict[str, Any] = {"risk": 1.5, "max_count": 4, "max_swaps": 9, "tolerance": 1e-6}

    found = fill_by_risk(known, weight, expert, slowness, starts, **search)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "has_triton", lambda device: False)
        expected = fill_by_risk(known, weight, expert, slowness, starts, **search)

    assert torch.equal(found, expected)


def _orders(num_rows: int, num_items: int) -> Tensor:
    """Return orders that no weight would give, so that full packs must take copies early on."""
    generator = torch.Generator().manual_seed(num_items)
    return torch.rand(num_rows, num_items, generator=generator).argsort(dim=1)


@pytest.mark.parametrize(
    ("kind", "heaviest"),
    [([0, 0, 0, 1, 1, 1, 2, 3, 4], 50), ([0, 1, 2, 3, 4, 5, 6, 7, 8], 3)],
    ids=["room", "ties"],
)
def test_packs_of_any_order_are_those_of_the_compiled_loops(
    kind: list[int], heaviest: int
) -> None:
    """What made room weighs what it took; of swaps that gain the same, the first is made."""
    from expertplane_planner.kernels import triton_gpu

    kinds, order = torch.tensor([kind]).repeat(16, 1), _orders(16, len(kind))
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(1, heaviest, kinds.shape, generator=generator).double()
    search: dict[str, Any] = {"max_swaps": 3, "tolerance": 0.0}

    with races():
        found = triton_gpu.pack_distinct(weight, kinds, order, 3, **search)

    assert torch.equal(found, numba_cpu.pack_distinct(weight, kinds, order, 3, **search))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("row", "num_packs"),
    [([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 4, 5], 4), ([0, 0, 1, 1, 2, 3, 4, 5], 4)],
    ids=["triple", "double"],
)
def test_full_packs_make_room_as_in_the_other_legs(
    row: list[int], num_packs: int, dtype: torch.dtype
) -> None:
    """Held experts and the worst pack, where full packs take copies and differ in speed."""
    num_experts, num_rows = max(row) + 1, 16
    known = _uncertainty(3, num_rows, num_experts, dtype)
    generator = torch.Generator().manual_seed(3)
    slowness = 0.2 + 2.8 * torch.rand(num_rows, num_packs, generator=generator).double()

    _assert_as_the_other_legs(known, row, slowness)


def test_of_swaps_that_gain_the_same_the_first_is_made() -> None:
    """Whole tokens without uncertainty, few of them, so that there are many ties."""
    generator = torch.Generator().manual_seed(4)
    mean = torch.randint(1, 4, (16, 9), generator=generator).double()
    known = Uncertainty(mean, torch.zeros(16, 9, 9))

    _assert_as_the_other_legs(known, list(range(9)), torch.ones(16, 3, dtype=torch.float64))


def _assert_as_the_other_legs(known: Uncertainty, row: list[int], slowness: Tensor) -> None:
    """Pack the same row in many layers, each in another order."""
    from expertplane_planner.kernels import triton_gpu

    num_rows = len(slowness)
    counts = torch.tensor(row).bincount().double()
    case = (
        *known,
        counts.reciprocal().repeat(num_rows, 1),
        torch.tensor([row]).repeat(num_rows, 1),
        _orders(num_rows, len(row)),
        slowness,
        torch.full((num_rows,), 1.2, dtype=torch.float64),
    )
    for max_swaps in (0, 3):
        search: dict[str, Any] = {"risk": 1.2, "max_swaps": max_swaps, "tolerance": 1e-9}

        with races():
            held, peak = triton_gpu.pack_by_risk(*case, **search)

        expected = numba_risk.pack_by_risk(*case, **search)
        assert torch.equal(held, expected[0])
        assert torch.equal(peak, expected[1])
        assert torch.equal(held, torch_risk.pack_by_risk(*case, **search)[0])


def _solved(policy: str, mode: Mode, **params: str) -> Plan:
    generator = torch.Generator().manual_seed(3)
    samples = torch.randint(0, 60, (3, 2, 8), generator=generator)
    return solve(
        ExpertLoad(samples),
        Topology(num_nodes=2, num_ranks=4, num_slots=12),
        num_expert_groups=4,
        mode=mode,
        policy=get_policy(policy, params),
        spill=2 if mode is Mode.SOFT_HIERARCHICAL else 0,
        seed=5,
    )


@pytest.mark.parametrize("mode", [Mode.GLOBAL, Mode.HIERARCHICAL, Mode.SOFT_HIERARCHICAL])
@pytest.mark.parametrize(
    ("policy", "params"),
    [("balanced", {}), ("robust", {}), ("robust", {"num_starts": "3", "noise": "0.5"})],
    ids=["balanced", "robust", "robust-starts"],
)
def test_policies_plan_as_on_the_cpu(
    request: pytest.FixtureRequest, policy: str, params: dict[str, str], mode: Mode
) -> None:
    """A plan has the same digest, whichever leg made it."""
    expected = _solved(policy, mode, **params).digest
    request.getfixturevalue("on_triton")

    assert _solved(policy, mode, **params).digest == expected


def test_what_does_not_fit_a_program_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond 1024 experts, 2048 slots, 256 ranks or 64 slots a rank, no kernel is asked."""
    monkeypatch.setattr(kernels, "has_triton", lambda device: True)
    cpu = torch.device("cpu")

    assert kernels.fuses(cpu, 1024, 2048, 256)
    assert kernels.fuses(cpu, 256, 2048, 32)
    for too_much in ((1025, 2048, 256), (256, 2304, 256), (512, 514, 257), (64, 130, 2)):
        assert not kernels.fuses(cpu, *too_much)


def test_what_does_not_fit_a_program_has_one_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle multiprocessors are a kernel's: torch operations would take as many times as long."""
    from expertplane_planner.kernels import triton_gpu

    monkeypatch.setattr(kernels, "has_triton", lambda device: True)
    monkeypatch.setattr(triton_gpu, "num_concurrent", lambda *_: 528)
    cpu = torch.device("cpu")

    assert kernels.num_idle_starts(cpu, 58, 256, 288, 32) == 9
    assert kernels.num_idle_starts(cpu, 600, 256, 288, 32) == 1
    assert kernels.num_idle_starts(cpu, 58, 1280, 1408, 32) == 1


def test_a_launcher_refuses_what_its_kernel_would_misread() -> None:
    """Pointers know neither dtype nor shape nor stride: launchers look at all three."""
    from expertplane_planner.kernels import triton_gpu

    weight, kind = torch.ones(2, 4, dtype=torch.float64), torch.zeros(2, 4, dtype=torch.int64)
    sizes: dict[str, Any] = {"max_count": 2, "max_swaps": 1, "tolerance": 0.0}
    for wrong in (
        (weight.float(), kind),
        (weight, kind.int()),
        (weight, kind[:, :3]),
        (weight.mT.contiguous().mT, kind),
    ):
        with pytest.raises(AssertionError, match="Expected"):
            triton_gpu.fill_distinct(*wrong, 4, 2, **sizes)


def test_a_missing_barrier_is_noticed() -> None:
    """A store that another warp may overtake, and one that another program may, are races."""
    import triton
    import triton.language as tl

    @triton.jit  # type: ignore[untyped-decorator]
    def passes_on(x, has_barrier: tl.constexpr):  # type: ignore[no-untyped-def]
        at = tl.arange(0, 4)
        tl.store(x + tl.program_id(0) * 4 + at, at)
        if has_barrier:
            tl.debug_barrier()
        tl.store(x + tl.program_id(0) * 4 + at, tl.load(x + 3 - at))

    for num_programs, has_barrier in ((1, False), (2, True), (1, True)):
        with races(), pytest.raises(Exception) as caught:  # noqa: PT011 - Triton wraps it
            passes_on[(num_programs,)](torch.zeros(8, dtype=torch.int32), has_barrier)
        assert isinstance(caught.value.__cause__ or caught.value, RaceError)


def test_starts_differ_and_the_first_is_plain() -> None:
    """Start 0 has no noise and the risk of the swaps; all others have both of their own."""
    like = torch.zeros(1, dtype=torch.float64)
    starts = diverse_starts(4, 6, risk=2.0, spread=0.25, seed=1, like=like)

    assert starts.noise[0].tolist() == [1.0] * 6
    assert starts.greedy_risk.tolist() == [2.0, 0.0, 2.0, 4.0]
    assert ((starts.noise - 1.0).abs() <= 0.25).all()
    assert len({tuple(row) for row in starts.noise.tolist()}) == 4
    assert isinstance(starts, Starts)


def test_where_triton_cannot_launch_torch_takes_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine without a C compiler plans all the same, and says so once."""
    from expertplane_planner.kernels import triton_gpu

    def fails(device: torch.device) -> None:
        raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(triton_gpu, "try_out", fails)
    kernels._can_launch.cache_clear()
    try:
        assert not kernels.has_triton(torch.device("cuda"))
        assert not kernels.fuses(torch.device("cuda"), 8, 8, 2)
    finally:
        kernels._can_launch.cache_clear()
    assert [record.getMessage() for record in caplog.records] == [
        "Triton cannot launch kernels on cuda, torch operations take their place: "
        "RuntimeError: Failed to find C compiler."
    ]


def test_a_device_that_fails_says_nothing_about_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory at the first question: that is raised, and the question asked again."""
    from expertplane_planner.kernels import triton_gpu

    errors: list[Exception] = [RuntimeError("Triton Error [CUDA]: out of memory")]

    def fails_once(device: torch.device) -> None:
        if errors:
            raise errors.pop()

    monkeypatch.setattr(triton_gpu, "try_out", fails_once)
    kernels._can_launch.cache_clear()
    try:
        with pytest.raises(RuntimeError, match="out of memory"):
            kernels.has_triton(torch.device("cuda"))
        assert kernels.has_triton(torch.device("cuda"))
    finally:
        kernels._can_launch.cache_clear()


def test_large_programs_leave_room_for_fewer_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four programs of four warps share a multiprocessor, of eight warps one has it for itself."""
    from expertplane_planner.kernels import triton_gpu

    device = SimpleNamespace(multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device)
    monkeypatch.setattr(kernels, "has_triton", lambda _: True)
    cuda = torch.device("cuda")

    assert triton_gpu.num_concurrent(cuda, 32, 9) == 4 * 132
    assert kernels.num_idle_starts(cuda, 58, 256, 288, 32) == 4 * 132 // 58
    assert kernels.num_idle_starts(cuda, 58, 1024, 2048, 256) == 132 // 58
    assert kernels.num_idle_starts(cuda, 1856, 256, 288, 32) == 1

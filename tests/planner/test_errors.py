from __future__ import annotations

import pickle

import pytest

from expertplane_planner import (
    InvalidInputError,
    InvalidLoadError,
    InvalidPlacementError,
    InvalidTopologyError,
    PlannerError,
    UnknownPolicyError,
)


CONCRETE = (
    InvalidInputError,
    InvalidTopologyError,
    InvalidLoadError,
    InvalidPlacementError,
    UnknownPolicyError,
)


@pytest.mark.parametrize("kind", CONCRETE)
def test_an_error_reads_as_its_message(kind: type[InvalidInputError]) -> None:
    """An error prints its message alone and keeps the field beside it."""
    error = kind("load.samples", "Expected this, got that.")

    assert str(error) == "Expected this, got that."
    assert error.field == "load.samples"


@pytest.mark.parametrize("kind", CONCRETE)
def test_an_error_survives_pickling(kind: type[InvalidInputError]) -> None:
    """An error comes out of a worker process with its type, field and message."""
    copy = pickle.loads(pickle.dumps(kind("seed", "Expected more, got less.")))

    assert type(copy) is kind
    assert (copy.field, str(copy)) == ("seed", "Expected more, got less.")


@pytest.mark.parametrize("kind", CONCRETE)
def test_every_input_error_is_a_value_error(kind: type[InvalidInputError]) -> None:
    """A caller may catch PlannerError or the built-in ValueError."""
    assert issubclass(kind, InvalidInputError)
    assert issubclass(kind, PlannerError)
    assert issubclass(kind, ValueError)

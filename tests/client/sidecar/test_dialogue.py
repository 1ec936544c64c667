"""What engines say, word by word."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from expertplane_client import InputError
from expertplane_client.sidecar.arrays import from_document, to_document
from expertplane_client.sidecar.dialogue import (
    Applied,
    EngineHello,
    Load,
    Refused,
    Staged,
    parse_line,
    parse_state,
)


def line(**fields: Any) -> bytes:
    """Returns a message as an engine sends it."""
    return json.dumps(fields).encode()


def test_every_kind_is_understood() -> None:
    """Fields that may be left out have the value that says least."""
    applied = {"version": 3, "digest": "ab", "step": 9}
    hello = parse_line(line(type="hello", engine_run_id="run-1", applied=applied))

    assert isinstance(hello, EngineHello)
    assert (hello.engine_run_id, hello.initial_phy2log) == ("run-1", None)
    assert hello.applied == Applied(version=3, digest="ab", step=9)
    assert parse_line(line(type="staged", version=3)) == Staged(version=3)
    assert parse_line(line(type="applied", version=3)) == Applied(version=3, digest="", step=0)
    assert parse_line(line(type="refused", version=3)) == Refused(
        version=3, message="", is_transient=True
    )
    counts = {"shape": [1, 2], "data": "AQAAAAIAAAA="}
    load = parse_line(line(type="load", first_step=5, counts=counts))
    assert isinstance(load, Load)
    assert (load.first_step, load.steps_per_sample, load.kind, load.scope) == (
        5,
        1,
        "logical",
        "participant",
    )
    np.testing.assert_array_equal(load.counts, [[1, 2]])


def test_a_state_says_all_at_once() -> None:
    """The state file of the directory has the fields of hello, staged and refused."""
    state = parse_state(line(engine_run_id="r", staged={"version": 4}, refused={"version": 5}))

    assert state.staged == Staged(version=4)
    assert state.refused is not None
    assert state.refused.version == 5
    assert parse_state(line(engine_run_id="r", staged=None)).staged is None


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_an_array_survives_the_way(dtype: Any, order: str) -> None:
    """Whatever the byte order and layout in memory, the elements arrive."""
    array = np.arange(6).astype(np.dtype(dtype).newbyteorder(order)).reshape(2, 3).T

    found = from_document(json.loads(json.dumps(to_document(array))), "counts")

    np.testing.assert_array_equal(found, array)
    assert found.dtype == dtype


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"dtype": "object"}, "counts.dtype"),
        ({"dtype": ["int32"]}, "counts.dtype"),
        ({"shape": [2, 2]}, "16 bytes, got 8"),
        ({"shape": [-1, -2]}, "counts.shape"),
        ({"shape": [2**40, 2**40]}, "bytes, got 8"),
        ({"shape": [1, 1, 1, 2]}, "1 to 3"),
        ({"shape": [True, 2]}, "counts.shape"),
        ({"data": "?"}, "base64"),
        ({"data": 7}, "base64"),
    ],
)
def test_a_bad_array_is_refused(change: Any, complaint: str) -> None:
    """Nothing is allocated for a shape that its data does not fill."""
    document = {"shape": [1, 2], "data": "AQAAAAIAAAA="} | change
    with pytest.raises(InputError, match="^Expected counts") as caught:
        from_document(document, "counts")

    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"type": "hello", "engine_run_id": "a b"}, "engine_run_id"),
        ({"type": "hello", "engine_run_id": 7}, "a string, got 7"),
        ({"type": "hello", "initial_phy2log": {"shape": [2], "data": "AQAAAAIAAAA="}}, "[layers"),
        ({"type": "hello", "applied": 3}, "hello.applied"),
        ({"type": "applied", "version": True}, "applied.version"),
        ({"type": "applied", "version": 1.0}, "applied.version"),
        ({"type": "applied", "version": 2**53}, "applied.version"),
        ({"type": "applied", "version": 1, "step": -1}, "applied.step"),
        ({"type": "applied", "version": 1, "digest": 1}, "applied.digest"),
        ({"type": "refused", "version": 1, "transient": "no"}, "refused.transient"),
        ({"type": "refused", "version": 1, "message": 1}, "refused.message"),
        ({"type": "load", "counts": 1}, "load.counts"),
        ({"type": "load", "kind": "x"}, "load.kind"),
        ({"type": "load", "steps_per_sample": 2**32}, "load.steps_per_sample"),
        ({"type": "load", "steps_per_sample": 0}, "load.steps_per_sample"),
        ({"type": "load", "scope": "x"}, "load.scope"),
    ],
)
def test_a_bad_field_is_named(fields: Any, complaint: str) -> None:
    """The message says what was expected, and then what was found."""
    with pytest.raises(InputError, match="^Expected") as caught:
        parse_line(line(**fields))

    assert complaint in str(caught.value)

"""What both ends must agree on beyond the messages."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from expertplane.v1 import tensor_pb2
from expertplane.wire import (
    TensorError,
    decode_tensor,
    derive_log2phy,
    derive_logcnt,
    digest_phy2log,
    encode_tensor,
)
from expertplane.wire.tensors import INTEGERS


DTYPES = ("int16", "int32", "int64", "float32", "float64")


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Draw an array of any wire type, byte order, and layout."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES))).newbyteorder(draw(st.sampled_from("<>")))
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    size = int(np.prod(shape)) * dtype.itemsize
    array: np.ndarray[Any, Any] = np.frombuffer(
        draw(st.binary(min_size=size, max_size=size)), dtype=dtype
    )
    array = array.reshape(shape)
    return array.T if draw(st.booleans()) else array


@given(arrays())
def test_round_trip(array: np.ndarray[Any, Any]) -> None:
    """Whatever the layout, what comes out is what went in, NaN included."""
    read = decode_tensor(encode_tensor(array), max_shape=[4] * array.ndim)

    assert read.dtype == array.dtype.newbyteorder("<")
    np.testing.assert_array_equal(read, array)


def test_bytes_on_the_wire() -> None:
    """Elements travel little-endian in C order."""
    message = encode_tensor(np.array([[1, 2], [3, 258]], dtype=">i2", order="F"))

    assert message.dtype == tensor_pb2.D_TYPE_INT16
    assert list(message.shape) == [2, 2]
    assert message.data == b"\x01\x00\x02\x00\x03\x00\x02\x01"


def test_view_is_read_only() -> None:
    """What is read shares the message's memory and cannot be written to."""
    read = decode_tensor(encode_tensor(np.zeros(3)), max_shape=[3])

    assert not read.flags.writeable
    assert not read.flags.owndata


@pytest.mark.parametrize("dtype", ["uint16", "int8", "bool", "float16", "complex64", "U1"])
def test_type_without_wire_type(dtype: str) -> None:
    """Other element types are refused rather than converted."""
    with pytest.raises(TensorError) as refusal:
        encode_tensor(np.zeros(1, dtype=dtype))

    assert refusal.value.field == "dtype"


def tensor(**changes: Any) -> tensor_pb2.Tensor:
    """Return a message of two doubles, changed."""
    fields = {"dtype": tensor_pb2.D_TYPE_FLOAT64, "shape": [1, 2], "data": bytes(16), **changes}
    return tensor_pb2.Tensor(**fields)


@pytest.mark.parametrize(
    ("field", "text", "changes"),
    [
        ("dtype", "got D_TYPE_UNSPECIFIED", {"dtype": 0}),
        ("dtype", "got 6", {"dtype": 6}),
        ("dtype", "got -1", {"dtype": -1}),
        ("shape", "Expected 2 dimensions, got 0", {"shape": []}),
        ("shape", "Expected 2 dimensions, got 1", {"shape": [2]}),
        ("shape", "Expected 2 dimensions, got 3", {"shape": [1, 1, 2]}),
        ("shape", "Expected extents from 1 to [4, 4], got [0, 2]", {"shape": [0, 2]}),
        ("shape", "Expected extents from 1 to [4, 4], got [1, 5]", {"shape": [1, 5]}),
        ("shape", "Expected extents", {"shape": [2**32 - 1, 2**32 - 1]}),
        ("data", "Expected 16 bytes for shape [1, 2] of float64, got 0", {"data": b""}),
        ("data", "got 15", {"data": bytes(15)}),
        ("data", "got 17", {"data": bytes(17)}),
    ],
)
def test_refused(field: str, text: str, changes: dict[str, Any]) -> None:
    """A message that breaks the contract is refused under the part at fault."""
    with pytest.raises(TensorError) as refusal:
        decode_tensor(tensor(**changes), max_shape=[4, 4])

    assert refusal.value.field == field
    assert text in str(refusal.value)


def test_type_that_is_not_wanted_here() -> None:
    """A caller may take fewer types than there are."""
    with pytest.raises(TensorError, match="Expected one of int16, int32, int64"):
        decode_tensor(tensor(), max_shape=[4, 4], dtypes=INTEGERS)


def test_refusal_is_a_value_error() -> None:
    """A caller may catch the built-in error."""
    assert issubclass(TensorError, ValueError)


def test_digest_vector() -> None:
    """The digest is pinned: planner, server and client compute the same."""
    phy2log = np.array([[0, 1, 2, 0], [2, 1, 0, 1]])

    expected = "b3c72283134eacd42dd9c52fc707cb0531c9179493f89423b9dce61c09622653"
    assert digest_phy2log(phy2log) == expected


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<i4", ">i8", "uint8"])
def test_digest_of_any_integers(dtype: str) -> None:
    """The digest depends on the numbers, not on how they are held."""
    phy2log = np.array([[0, 1, 2, 0], [2, 1, 0, 1]])

    assert digest_phy2log(np.asfortranarray(phy2log.astype(dtype))) == digest_phy2log(phy2log)


def test_digest_tells_shapes_apart() -> None:
    """The same numbers in another shape are another placement."""
    flat = np.arange(4)

    assert digest_phy2log(flat.reshape(1, 4)) != digest_phy2log(flat.reshape(2, 2))


def test_maps_by_hand() -> None:
    """Expert 1 has slots 1 and 2; slot 3 belongs to a masked rank."""
    phy2log = np.array([[0, 1, 1, -1]], dtype=np.int16)

    assert derive_logcnt(phy2log, 3).tolist() == [[1, 2, 0]]
    assert derive_log2phy(phy2log, 3).tolist() == [[[0, -1], [1, 2], [-1, -1]]]


def test_map_types() -> None:
    """Both maps are int32, as the wire wants them."""
    phy2log = np.array([[0, 1]], dtype=np.int64)

    assert derive_logcnt(phy2log, 2).dtype == np.int32
    assert derive_log2phy(phy2log, 2).dtype == np.int32


@pytest.mark.parametrize("num_experts", [1, 3])
def test_all_ranks_masked(num_experts: int) -> None:
    """Without a slot there is no replica, and nothing to list."""
    phy2log = np.full((2, 3), -1)

    assert derive_logcnt(phy2log, num_experts).tolist() == [[0] * num_experts] * 2
    assert derive_log2phy(phy2log, num_experts).shape == (2, num_experts, 0)


@given(st.data())
def test_maps(data: st.DataObject) -> None:
    """The derived maps say what a slow search says: slots ascending, padded with -1."""
    num_experts = data.draw(st.integers(1, 5))
    num_slots = data.draw(st.integers(1, 8))
    row = st.lists(st.integers(-1, num_experts - 1), min_size=num_slots, max_size=num_slots)
    layers = data.draw(st.lists(row, min_size=1, max_size=3))
    slots = [
        [[slot for slot, e in enumerate(layer) if e == expert] for expert in range(num_experts)]
        for layer in layers
    ]
    width = max(len(each) for layer in slots for each in layer)
    padded = [[each + [-1] * (width - len(each)) for each in layer] for layer in slots]

    phy2log = np.array(layers)
    assert derive_logcnt(phy2log, num_experts).tolist() == [
        [len(each) for each in layer] for layer in slots
    ]
    assert derive_log2phy(phy2log, num_experts).tolist() == padded


def test_no_torch() -> None:
    """The wire helpers stay light: whoever imports them does not import torch."""
    assert "torch" not in vars(sys.modules["expertplane.wire"])

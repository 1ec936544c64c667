"""Arrays to tensors of the wire and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from expertplane.v1 import tensor_pb2
from expertplane_client import InputError, ProtocolError
from expertplane_client.tensors import from_tensor, to_tensor


_DTYPES = ["i1", "u1", "<i2", ">i2", "u2", "<i4", ">i4", "u4", "<i8", ">i8", "<f4", ">f8", "f2"]


def _arrays(dtype: str) -> st.SearchStrategy[np.ndarray[Any, Any]]:
    elements = {"allow_nan": False} if "f" in dtype else None
    return hnp.arrays(dtype, hnp.array_shapes(max_dims=4), elements=elements)


@given(
    array=st.sampled_from(_DTYPES).flatmap(_arrays),
    is_transposed=st.booleans(),
)
def test_an_array_survives_the_wire(array: np.ndarray[Any, Any], is_transposed: bool) -> None:
    """Values and shape come back whatever the dtype, byte order and memory layout were."""
    sent = array.T if is_transposed else array

    tensor = tensor_pb2.Tensor.FromString(to_tensor(sent, field="x").SerializeToString())
    back = from_tensor(tensor, field="x", max_shape=sent.shape)

    np.testing.assert_array_equal(sent, back)


def test_bytes_are_little_endian_in_c_order() -> None:
    """The bytes on the wire are those that the contract spells out."""
    tensor = to_tensor(np.array([[1, 2], [3, 256]], dtype=">i2").T, field="x")

    assert tensor.dtype == tensor_pb2.D_TYPE_INT16
    assert tensor.data == b"\x01\x00\x03\x00\x02\x00\x00\x01"


def test_a_received_array_cannot_be_written() -> None:
    """What came over the wire is a view that nobody can change."""
    back = from_tensor(to_tensor(np.zeros((2, 2)), field="x"), field="x", max_shape=(4, 4))

    with pytest.raises(ValueError, match="read-only"):
        back[0, 0] = 1


@pytest.mark.parametrize("dtype", ["?", "u8", "c8", "O", "U1"])
def test_a_dtype_without_counterpart_is_refused(dtype: str) -> None:
    """What the wire cannot carry exactly is not sent at all."""
    with pytest.raises(InputError, match="got "):
        to_tensor(np.zeros((1, 1), dtype=dtype), field="load")


def test_an_empty_dimension_is_refused() -> None:
    """Every extent on the wire is at least 1."""
    with pytest.raises(InputError, match="empty"):
        to_tensor(np.zeros((2, 0)), field="load")


@pytest.mark.parametrize(
    "tensor",
    [
        tensor_pb2.Tensor(shape=[1, 1], data=b"\0\0\0\0"),
        tensor_pb2.Tensor(dtype=99, shape=[1, 1], data=b"\0\0\0\0"),  # type: ignore[arg-type]
        tensor_pb2.Tensor(dtype=tensor_pb2.D_TYPE_INT32, shape=[1], data=b"\0\0\0\0"),
        tensor_pb2.Tensor(dtype=tensor_pb2.D_TYPE_INT32, shape=[0, 1], data=b""),
        tensor_pb2.Tensor(dtype=tensor_pb2.D_TYPE_INT32, shape=[1, 2], data=b"\0\0\0\0"),
        tensor_pb2.Tensor(dtype=tensor_pb2.D_TYPE_INT32, shape=[2**32 - 1] * 2, data=b"\0"),
    ],
    ids=["no dtype", "unknown dtype", "dimensions", "extent 0", "too short", "huge shape"],
)
def test_a_tensor_that_contradicts_itself_is_refused(tensor: tensor_pb2.Tensor) -> None:
    """Dtype, shape and length are checked before a byte is looked at."""
    with pytest.raises(ProtocolError, match=r"plan\.phy2log\.\w+: Expected"):
        from_tensor(tensor, field="plan.phy2log", max_shape=(4, 4))

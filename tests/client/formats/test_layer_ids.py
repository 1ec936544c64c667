"""Lists of layers as people write them."""

from __future__ import annotations

import pytest

from expertplane_client.formats import FormatError, parse_layer_ids
from expertplane_client.formats.layer_ids import format_layer_ids


@pytest.mark.parametrize(
    ("text", "layer_ids"),
    [("3", (3,)), ("3-5", (3, 4, 5)), ("0, 2-3 ,7", (0, 2, 3, 7)), ("4-4", (4,))],
)
def test_lists_of_layers_are_parsed(text: str, layer_ids: tuple[int, ...]) -> None:
    """Numbers and ranges, both ends included."""
    assert parse_layer_ids(text) == layer_ids


@pytest.mark.parametrize(
    "text", ["", ",", "a", "3-", "-3", "5-3", "3,3", "3-5,4", "0-999999999", "1.5", "3--5"]
)
def test_a_list_out_of_order_is_refused(text: str) -> None:
    """Whatever is no ascending list of layers is told as a mistake in that list."""
    with pytest.raises(FormatError, match="Expected"):
        parse_layer_ids(text)


def test_a_list_is_written_as_it_is_read() -> None:
    """Neighbours become a range."""
    assert format_layer_ids((0, 2, 3, 4, 7, 8)) == "0,2-4,7-8"
    assert parse_layer_ids(format_layer_ids((0, 2, 3, 4, 7, 8))) == (0, 2, 3, 4, 7, 8)

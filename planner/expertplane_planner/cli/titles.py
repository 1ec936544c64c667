"""What stands above tables and pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from collections.abc import Mapping


def title_of(sizes: Mapping[str, Any], *what: str) -> str:
    """Return a title in plain text: names may hold braces, brackets, whatever they like.

    Args:
        sizes: The problem's, by name.
        what: What is shown, most important first, such as the policy and the mode.
    """
    slots = f" -> {sizes['num_slots']} slots" if "num_slots" in sizes else ""
    nodes = f" of {sizes['num_nodes']} nodes" if sizes["num_nodes"] > 1 else ""
    size = f"{sizes['num_layers']} layers x {sizes['num_logical_experts']} experts"
    return ", ".join((*what, f"{size}{slots} on {sizes['num_ranks']} ranks{nodes}"))

"""The program that a .pt file is, walked before torch runs it: what it calls, how large it grows.

What a program builds may share its parts, and then be larger than the file by any factor: a tuple
of itself, twice, sixty levels deep takes 2**60 steps to hash or to print. So the walk keeps, of
all that is built, which container holds which.
"""

from __future__ import annotations

import pickletools
from typing import Any

from expertplane_client.errors import FormatError


MAX_CONTAINERS = 2**20  # a tensor takes seven
MAX_SPARE_VALUES = 2**16
MAX_VALUES_PER_BYTE = 16

_ORDERED_DICT = "collections OrderedDict"
_STORAGES = ("Byte", "Char", "Short", "Int", "Long", "Half", "BFloat16", "Float", "Double")
_CALLABLES = {
    "torch._utils _rebuild_tensor_v2",
    _ORDERED_DICT,
    *(f"torch {name}Storage" for name in _STORAGES),
}
_PLAIN = {"NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_PLAIN |= {"BINUNICODE", "SHORT_BINSTRING", "GLOBAL"}
_EMPTY = {"EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_FILLS = {"APPEND": 1, "SETITEM": 2, "APPENDS": None, "SETITEMS": None}
_PUTS = {"BINPUT", "LONG_BINPUT"}
_GETS = {"BINGET", "LONG_BINGET"}

_VALUE = -1
"""Stands on the stack for what holds nothing: a number, text, a tensor. Others are containers."""

_ORDERED = -2
"""Stands for the class of ordered dicts; called, it is a container of its arguments."""


def check_program(program: bytes, *, source: str) -> None:
    """Checks a program without running it.

    Args:
        program: The pickle.
        source: Where it comes from, for messages.

    Raises:
        FormatError: it does more than building tensors, text, numbers, lists and dicts, or what it
            builds is larger than such a file makes it.
        Exception: whatever a damaged program runs into.
    """
    walk = _Walk()
    for opcode, argument, _ in pickletools.genops(program):
        is_foreign = opcode.name == "GLOBAL" and argument not in _CALLABLES
        if is_foreign or not walk.take(opcode.name, argument):
            wanted = argument if is_foreign else opcode.name
            raise FormatError(
                f"Expected {source} to hold nothing but numbers, text, lists, dicts and "
                f"tensors, got {str(wanted)[:80]!r}."
            )
        if len(walk.inner) > MAX_CONTAINERS:
            raise FormatError(
                f"Expected {source} of at most {MAX_CONTAINERS} lists, tuples and dicts, got more."
            )
    max_values = MAX_VALUES_PER_BYTE * len(program) + MAX_SPARE_VALUES
    if not _fits(walk.inner, walk.num_plain, max_values):
        raise FormatError(
            f"Expected {source} of at most {max_values} values, wherever they are repeated, got "
            f"more: a part that holds itself, or is shared again and again."
        )


class _Walk:
    """The unpickler's stack and memo, with containers by their number in place of objects."""

    def __init__(self) -> None:
        self.inner: list[list[int]] = []
        """Of each container, the containers in it, each as often as it is there."""
        self.num_plain: list[int] = []
        """Of each container, how many values it holds that hold nothing, and itself."""
        self._stack: list[int] = []
        self._marks: list[int] = []
        self._memo: dict[int, int] = {}

    def take(self, name: str, argument: Any) -> bool:
        """Follows an instruction; returns whether it is one of those that torch writes."""
        if name in _PLAIN:
            self._stack.append(_ORDERED if argument == _ORDERED_DICT else _VALUE)
        elif name in _PUTS:
            self._memo[argument] = self._stack[-1]
        elif name in _GETS:
            self._stack.append(self._memo[argument])
        elif name == "MARK":
            self._marks.append(len(self._stack))
        elif name in _FILLS:
            held = self._pop(_FILLS[name])
            if self._stack[-1] < 0:
                return False  # a tensor, say, is not filled
            self._hold(self._stack[-1], held)
        elif name in _EMPTY or name in _TUPLES or name == "TUPLE":
            self._build([] if name in _EMPTY else self._pop(_TUPLES.get(name)))
        elif name in ("REDUCE", "BINPERSID"):
            self._call(name)
        else:
            return name in ("PROTO", "STOP")
        return True

    def _call(self, name: str) -> None:
        arguments = self._stack.pop()
        if name == "REDUCE" and self._stack.pop() == _ORDERED:
            self._build([arguments])
        else:  # a storage or a tensor: its hash is its identity, its text is short
            self._stack.append(_VALUE)

    def _pop(self, count: int | None) -> list[int]:
        """Takes some values from the stack; None takes them down to the last mark."""
        start = self._marks.pop() if count is None else len(self._stack) - count
        if start < 0:
            raise IndexError("the stack is empty")
        held = self._stack[start:]
        del self._stack[start:]
        return held

    def _build(self, held: list[int]) -> None:
        self.inner.append([])
        self.num_plain.append(1)
        self._stack.append(len(self.inner) - 1)
        self._hold(self._stack[-1], held)

    def _hold(self, container: int, held: list[int]) -> None:
        inner = [part for part in held if part >= 0]
        self.inner[container] += inner
        self.num_plain[container] += len(held) - len(inner)


def _fits(inner: list[list[int]], num_plain: list[int], max_values: int) -> bool:
    """Whether all containers written out in full, one after the other, are of so many values.

    Whoever hashes or prints containers, however often, takes no more steps.
    """
    size = list(num_plain)
    num_open = [len(parts) for parts in inner]
    outer: list[list[int]] = [[] for _ in inner]
    for container, parts in enumerate(inner):
        for part in parts:
            outer[part].append(container)
    ready = [container for container, count in enumerate(num_open) if not count]
    num_done = total = 0
    while ready:
        part = ready.pop()
        num_done += 1
        total += size[part]
        if total > max_values:
            return False
        for container in outer[part]:
            size[container] += size[part]
            num_open[container] -= 1
            if not num_open[container]:
                ready.append(container)
    return num_done == len(inner)  # those that are left hold themselves

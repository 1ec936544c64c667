"""As much of the Dockerfile's grammar as it takes to ask what an image would be."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, its continued lines joined."""

    keyword: str
    flags: tuple[str, ...]
    value: str

    @property
    def words(self) -> list[str] | None:
        """The words of an exec form; None for the shell form."""
        text = self.value.removeprefix("CMD ") if self.keyword == "HEALTHCHECK" else self.value
        try:
            words = json.loads(text)
        except json.JSONDecodeError:
            return None
        return words if isinstance(words, list) else None


@dataclass(frozen=True, slots=True)
class Stage:
    """What lies between one FROM and the next."""

    name: str
    base: str
    parent: Stage | None
    instructions: list[Instruction] = field(default_factory=list)

    def lineage(self) -> Iterator[Instruction]:
        """Yields its instructions and those of the stages that it is built upon, oldest first."""
        if self.parent is not None:
            yield from self.parent.lineage()
        yield from self.instructions

    def last(self, keyword: str) -> Instruction:
        """Returns the instruction that is in force in the image."""
        return [one for one in self.lineage() if one.keyword == keyword][-1]

    def pairs(self, keyword: str) -> Mapping[str, str]:
        """Returns what all ENV or LABEL instructions of the image set."""
        joined = " ".join(one.value for one in self.lineage() if one.keyword == keyword)
        return {
            key: value.strip('"') for key, value in re.findall(r'([\w.]+)=("[^"]*"|\S+)', joined)
        }


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """Arguments before the first FROM, and the stages by name, in order."""

    arguments: Mapping[str, str]
    stages: Mapping[str, Stage]


def parse(path: Path) -> Dockerfile:
    """Reads a Dockerfile."""
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for one in _instructions(path.read_text()):
        if one.keyword == "FROM":
            base, _, name = re.split(r"\s+", one.value)
            stage = stages[name] = Stage(name, base, stages.get(base))
        elif stage is not None:
            stage.instructions.append(one)
        else:
            assert one.keyword == "ARG", "only ARG may precede the first FROM"
            name, _, default = one.value.partition("=")
            arguments[name] = default
    return Dockerfile(arguments, stages)


def _instructions(text: str) -> Iterator[Instruction]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for line in re.sub(r"\s*\\\n\s*", " ", "\n".join(lines)).splitlines():
        keyword, _, rest = line.strip().partition(" ")
        flags = []
        while match := re.match(r"(--\S+)\s+", rest):
            flags.append(match[1])
            rest = rest[match.end() :]
        yield Instruction(keyword, tuple(flags), rest)

"""Where the runs of a report came from; what several have in common is said once."""

from __future__ import annotations

import json
import shlex
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from reports.page_tables import plural
from reports.semantic import mapping_facts

if TYPE_CHECKING:
    from bench.store import Run

Shared = TypeVar("Shared", bound=Hashable)


@dataclass(frozen=True)
class Facts:
    """Code, machine and data of some runs, by name."""

    runs: Sequence[str]
    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Text:
    """A command or a configuration of some runs."""

    runs: Sequence[str]
    text: str


@dataclass(frozen=True)
class Times:
    """When a run started and ended."""

    run: str
    started: str
    finished: str


@dataclass(frozen=True)
class Provenance:
    """Where runs came from; each distinct block once, with the runs it holds for."""

    commands: Sequence[Text]
    facts: Sequence[Facts]
    times: Sequence[Times]
    configs: Sequence[Text]


def provenance(runs: Sequence[Run]) -> Provenance:
    """The provenance of a report's runs."""
    records = [(run.name, run.provenance) for run in runs]
    commands = _together([(name, _command(record)) for name, record in records])
    facts = _together([(name, _facts(record)) for name, record in records])
    configs = _together([(name, _config(record)) for name, record in records])
    return Provenance(
        [Text(names, command) for command, names in commands.items()],
        [Facts(names, each) for each, names in facts.items()],
        [_times(name, record) for name, record in records],
        [Text(names, config) for config, names in configs.items()],
    )


def _together(values: Sequence[tuple[str, Shared]]) -> dict[Shared, list[str]]:
    """The names of each distinct value, in their order."""
    names: dict[Shared, list[str]] = {}
    for name, value in values:
        names.setdefault(value, []).append(name)
    return names


def _command(record: Mapping[str, Any]) -> str:
    command = record.get("command") or []
    return command if isinstance(command, str) else shlex.join(command)


def _config(record: Mapping[str, Any]) -> str:
    return json.dumps(record.get("config") or {}, indent=2)


def _times(name: str, record: Mapping[str, Any]) -> Times:
    started, finished = record.get("started"), record.get("finished")
    return Times(name, str(started or "unknown"), str(finished or "not finished"))


def _facts(record: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    git = record.get("git") or {}
    commit = git.get("commit") or "unknown"
    if git.get("modified"):
        commit += ", with uncommitted changes"
    host = ", ".join(f"{key}: {value}" for key, value in (record.get("host") or {}).items())
    versions = record.get("versions") or {}
    facts = [
        ("Commit", commit),
        ("Host", host or "unknown"),
        ("Versions", ", ".join(f"{key} {value}" for key, value in versions.items())),
    ]
    for label, data in (record.get("datasets") or {}).items():
        facts.append((f"Data: {label}", _data(data)))
    facts += mapping_facts(record)
    return tuple(facts)


def _data(record: Mapping[str, Any]) -> str:
    count = len(record.get("sequences") or ())
    about = f"{plural(count, 'sequence')}, {plural(record.get('frames') or 0, 'frame')}"
    available = record.get("available")
    if available and available != count:
        about += f" (of {plural(available, 'sequence')} in the split)"
    return about

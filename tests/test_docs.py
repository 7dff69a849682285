"""What README and docs say can be followed: links, files, commands, settings, YAML."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from bench.ablate import load_ablation
from bench.cli import app
from bench.config import MethodConfig, method_settings, training_settings
from bench.errors import ConfigError
from bench.method import Trainable
from bench.registry import DATASETS, METHODS, discover, get_method
from bench.suite import load_suite

REPO = Path(__file__).resolve().parents[1]
PAGES = [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))]
TOP = ("bench", "methods", "datasets", "reports", "configs", "tests", "examples", "docs")
EXAMPLE = "mine"
"""The method that the pages write as an example; it is nowhere registered."""

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"python -m bench (.*)|torchrun .*-m bench (.*)")
PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b")
ELLIPSES = ("...", "…")


def page_name(page: Path) -> str:
    return str(page.relative_to(REPO))


def blocks(text: str, kind: str) -> list[str]:
    """Contents of the fenced blocks of a kind."""
    return [found for language, found in FENCE.findall(text) if language == kind]


def spans(text: str) -> list[str]:
    """Contents of the backticks outside of fenced blocks, on one line each."""
    return [" ".join(found.split()) for found in SPAN.findall(FENCE.sub("", text))]


def commands(text: str) -> Iterator[list[str]]:
    """The words after ``python -m bench`` of every command shown."""
    shown = [line for block in blocks(text, "") for line in block.splitlines()]
    for line in [*shown, *spans(text)]:
        if found := COMMAND.search(line):
            yield shlex.split(found[1] or found[2], comments=True)


def anchors(page: Path) -> set[str]:
    """The headings of a page as its links call them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.M)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-") for text in plain}


def unknown_links(page: Path) -> list[str]:
    """Relative links of a page that lead nowhere, to a file or to a heading of one."""
    lost = []
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            lost.append(target)
    return lost


def unknown_files(text: str) -> list[str]:
    """Paths into the tree, in backticks, that are not there; capitals stand for any name."""
    lost = []
    for span in spans(text):
        path = span.rstrip("/")
        if path.split("/")[0] not in TOP or not re.fullmatch(r"[\w./*-]+", path):
            continue
        if "/" in path and not any(REPO.glob(PLACEHOLDER.sub("*", path))):
            lost.append(span)
    return lost


def complaint(words: list[str]) -> str | None:
    """What the command line would say against these words; nothing is run."""
    command: Any = typer.main.get_command(app)
    left = list(words)
    while hasattr(command, "commands"):
        if not left or left[0] not in command.commands:
            return f"no command {left[:1]}"
        command = command.commands[left.pop(0)]
    if not left or left[-1] in ELLIPSES:  # the command is only named, or cut short
        known = {option for parameter in command.params for option in parameter.opts}
        given = {word.partition("=")[0] for word in left if word.startswith("--")}
        return f"no option {given - known}" if given - known else None
    try:
        command.make_context(command.name, left)
    except Exception as error:  # typer's own click has exceptions of its own
        return f"{type(error).__name__}: {error}"
    return None


def options(words: list[str], name: str) -> list[str]:
    """Values given to an option."""
    return [after for word, after in pairwise(words) if word == name]


def wrong_setting(key: str, methods: list[str], training: bool) -> str | None:
    """Why no method of these takes a setting; only its key is looked at, not its value."""
    head, _, rest = key.partition(".")
    # Capitals stand for any name; datasets check their settings when they are opened.
    if head == EXAMPLE or head.isupper() or head in DATASETS.module_dict:
        return None
    owners, inner = ([head], rest) if head in METHODS.module_dict else (methods, key)
    reasons = [_wrong_setting_of(name, inner, training) for name in owners]
    return next((None for reason in reasons if reason is None), f"{key}: {reasons}")


def _wrong_setting_of(name: str, key: str, training: bool) -> str | None:
    method = get_method(name)
    trains = training and key.startswith("training.")
    nested: Any = "PLACEHOLDER"
    for part in reversed(key.removeprefix("training.").split(".") if trains else key.split(".")):
        nested = {part: nested}
    try:
        if trains:
            if not issubclass(method, Trainable):
                return f"{name} does not train"
            training_settings(name, method, "tiny", nested)
        else:
            method_settings(name, method, None, nested)
    except ConfigError as error:
        return str(error) if error.found == "an unknown key" else None
    return None


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    discover("methods")
    discover("datasets")


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    assert unknown_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_files_named_are_there(page: Path) -> None:
    assert unknown_files(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_parse(page: Path) -> None:
    found = [(words, complaint(words)) for words in commands(page.read_text(encoding="utf-8"))]
    assert [pair for pair in found if pair[1]] == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_settings_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    wrong = []
    for words in commands(text):
        methods = [name for given in options(words, "--methods") for name in given.split(",")]
        methods += options(words, "--method")
        for given in options(words, "--set"):
            key = given.partition("=")[0]
            wrong.append(wrong_setting(key, methods, words[0] == "train"))
    alone = filter(None, (re.match(r"--set ([\w.]+)=", span) for span in spans(text)))
    wrong += [wrong_setting(found[1], sorted(METHODS.module_dict), True) for found in alone]
    assert [reason for reason in wrong if reason] == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_yaml_is_accepted(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(page.read_text(encoding="utf-8"), "yaml")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block)
        content = yaml.safe_load(block)
        if "grid" in content:
            load_ablation(path)
        elif "rows" in content:
            load_suite(path)
        else:
            MethodConfig.model_validate(content)


def test_commands_of_the_pages_are_found() -> None:
    """The other tests would pass on pages in which nothing is recognised."""
    found = {words[0] for page in PAGES for words in commands(page.read_text(encoding="utf-8"))}
    assert {"run", "train", "gap", "export", "suite", "ablate", "evaluate", "check"} <= found
    assert sum(len(blocks(page.read_text(encoding="utf-8"), "yaml")) for page in PAGES) >= 4


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("python -m bench run --method copy", "No such option"),
        ("python -m bench evaluate MASKS --data davis16", "Missing"),
        ("python -m bench train --budgets ...", "no option"),
        ("python -m bench walk", "no command"),
    ],
)
def test_wrong_commands_are_noticed(line: str, words: str) -> None:
    (parsed,) = commands(f"```\n{line}\n```\n")
    assert words in (complaint(parsed) or "")


def test_wrong_pages_are_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `page`\n[here](nowhere.md) and `bench/nowhere.py`, `configs/methods/NAME.yaml`\n"
        "[this](#a-page), [that](#a-heading), [other](page.md#no-heading)\n"
    )
    assert unknown_links(page) == ["nowhere.md", "#a-heading", "page.md#no-heading"]
    assert unknown_files(page.read_text()) == ["bench/nowhere.py"]
    assert wrong_setting("imagenet.stride", [], False)
    assert wrong_setting("training.objective.nothing", ["crw"], True)
    assert wrong_setting("imagenet.short_side", [], False) is None

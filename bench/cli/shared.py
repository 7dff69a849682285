"""What all commands share: consoles, common options, lists of names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

console = Console()
errors = Console(stderr=True)
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a setting: KEY=VALUE or METHOD.KEY=VALUE. Repeatable."),
]
RootOption = Annotated[
    Path | None,
    typer.Option(help="The data's folder. Otherwise $BENCH_DATA/NAME, then ./data/NAME."),
]
OutOption = Annotated[
    Path | None, typer.Option(help="The folder of all runs. Default: runs/<file's name>")
]
SequencesOption = Annotated[
    str | None, typer.Option(help="Only these sequences, separated by commas.")
]
SeedsOption = Annotated[str | None, typer.Option(help="Seeds, separated by commas.")]
DeviceOption = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]
WorkersOption = Annotated[int | None, typer.Option(help="Jobs at a time.")]
RowsDryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the rows, and run nothing.")
]


def fail(message: str) -> NoReturn:
    """Print an error and leave with exit code 2."""
    errors.print("[bold red]error:[/] ", end="")
    errors.print(message, markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)


def names(text: str | None) -> list[str] | None:
    """``"a,b"`` as a list; None stays None."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]

"""The command line: parse, call, print. All work is done elsewhere, and imported only when used."""

from __future__ import annotations

import os
import sys

import typer

from bench.cli.experiments import ablate, suite, train
from bench.cli.listings import check, data_check, doctor, list_
from bench.cli.pages import export, gap, report
from bench.cli.runs import evaluate, run, segment
from bench.cli.shared import errors, fail
from bench.errors import BenchError

app = typer.Typer(
    help="What labels buy in video object segmentation: run, score and compare methods.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

data_app = typer.Typer(help="Look after datasets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

# In the order in which `--help` lists them.
for command in (run, train, ablate, suite, gap, report, export, evaluate, segment):
    app.command()(command)
app.command("list")(list_)
app.command()(check)
app.command()(doctor)
data_app.command("check")(data_check)


def main() -> None:
    """Run a command; errors a user can mend become one message and exit code 2."""
    try:
        app()
    except BenchError as error:
        fail(str(error))
    except BrokenPipeError:
        # The reader went away, as `| head` does; nothing more can be said on standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # Places that cannot be read or written: full disks, missing rights, files as folders.
        fail(f"{error.filename or 'the file system'}: {error.strerror or error}")
    except KeyboardInterrupt:
        errors.print("Stopped. What had finished is kept.")
        sys.exit(130)

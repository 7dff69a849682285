"""Draw pseudo-sequences: ``python -m methods.shls.offline --data ecssd --out sheet.png``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.dataset import ImageDataset, find_root
from bench.errors import BenchError, ConfigError
from bench.registry import get_dataset
from methods.shls.offline.contact_sheet import contact_sheet
from methods.shls.offline.saliency import DEFAULT_SOURCE, SaliencyMaps
from methods.shls.offline.sequences import PseudoSequences, SequenceSettings, Sources

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def draw(
    out: Annotated[Path, typer.Option(help="The PNG to write.")],
    data: Annotated[str, typer.Option(help="A dataset of still images.")] = "ecssd",
    root: Annotated[Path | None, typer.Option(help="The data's folder.")] = None,
    saliency: Annotated[
        str,
        typer.Option(
            help="combined, robust_background, minimum_barrier, precomputed or ground_truth."
        ),
    ] = DEFAULT_SOURCE,
    maps: Annotated[Path | None, typer.Option(help="The folder of precomputed maps.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Keep detected maps in this folder.")] = None,
    size: Annotated[int, typer.Option(min=32, help="Side of the frames in pixels.")] = 256,
    count: Annotated[int, typer.Option(min=1, help="Sequences to draw.")] = 12,
    images: Annotated[int, typer.Option(min=1, help="Images to make them of.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Of all random choices.")] = 0,
    paper: Annotated[bool, typer.Option("--paper", help="As the authors make them.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes that detect saliency.")] = 1,
) -> None:
    """Draw a row per pseudo-sequence: image, saliency, frames, and frames under their labels."""
    found, split = get_dataset(data)
    if not issubclass(found, ImageDataset):
        raise ConfigError(
            f"--data {data}", "a dataset of videos", "still images", "For instance --data ecssd."
        )
    dataset = found(find_root(found, root), split)
    settings = SequenceSettings.paper(size=size) if paper else SequenceSettings(size=size)
    # Spread over the dataset, whose images are often sorted by kind.
    number = min(images, len(dataset))
    chosen = [index * len(dataset) // number for index in range(number)]
    source = SaliencyMaps(saliency, maps, cache)  # type: ignore[arg-type]  # checked there
    sources = Sources(dataset, source, 2 * size, chosen, workers)
    contact_sheet(PseudoSequences(sources, settings, seed), count, out)
    typer.echo(f"{out}: {count} sequences made of {number} images")


def main() -> None:
    """Run the command; errors a user can mend become one message and exit code 2."""
    try:
        app()
    except BenchError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        typer.echo(f"error: {error.filename or 'the file system'}: {error.strerror}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()

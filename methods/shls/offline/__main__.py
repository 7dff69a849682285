"""Draw a contact sheet: ``python -m methods.shls.offline --data ecssd --out sheet.png``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from bench.dataset import ImageDataset, find_root
from bench.errors import BenchError, ConfigError
from bench.registry import get_dataset
from methods.shls.offline.contact_sheet import contact_sheet
from methods.shls.offline.saliency import SaliencyMaps, SaliencySource
from methods.shls.offline.sequences import PseudoSequences, SequenceSettings, Sources


def main(
    out: Annotated[Path, typer.Option(help="The PNG to write.")],
    data: Annotated[str, typer.Option(help="A dataset of still images.")] = "ecssd",
    root: Annotated[Path | None, typer.Option(help="The data's folder.")] = None,
    saliency: Annotated[
        str, typer.Option(help="A detector, precomputed or ground_truth.")
    ] = "combined",
    maps: Annotated[Path | None, typer.Option(help="Folder of precomputed maps.")] = None,
    size: Annotated[int, typer.Option(help="Side of the frames in pixels.")] = 256,
    count: Annotated[int, typer.Option(min=1, help="Sequences to draw.")] = 8,
    images: Annotated[int, typer.Option(min=1, help="Images to make them of.")] = 60,
    seed: Annotated[int, typer.Option(help="Of all random choices.")] = 0,
) -> None:
    """Pseudo-sequences of the offline stage, a row each: frames, then frames with their labels."""
    found, split = get_dataset(data)
    dataset = found(find_root(found, root), split)
    if not isinstance(dataset, ImageDataset):
        raise ConfigError(f"--data {data}", "videos", "still images", "For instance ecssd.")
    known = get_args(SaliencySource)
    if saliency not in known:
        raise ConfigError(
            f"--saliency {saliency}", "no such source", f"one of {', '.join(known)}", "Correct it."
        )
    source = SaliencyMaps(cast("SaliencySource", saliency), maps)
    chosen = range(min(images, len(dataset)))
    sources = Sources(dataset, source, 2 * size, chosen)
    contact_sheet(PseudoSequences(sources, SequenceSettings(size=size), seed), count, out)
    typer.echo(f"Sheet: {out}")


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except BenchError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)

"""Figures that show what SHLS works with: ``python -m methods.shls.figures --help``.

- ``superpixels.png``: superpixels over the first frame and over a later one.
- ``latent_space.png``: superfeatures of several frames in two dimensions, coloured by object.
- ``attention.png``: the four attention maps of an object, and the pre-segmentation.
- ``compression.csv``: bytes of superfeatures against bytes of the feature maps they stand for.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor

from bench.dataset import VideoDataset, find_root
from bench.errors import BenchError, ConfigError
from bench.masks import PALETTE, overlay
from bench.registry import get_dataset
from bench.segment import build_segmenter
from bench.video import RGB, Video, object_ids
from methods.shls.method import SHLS, labels_of, resized, shrink_labels
from methods.shls.pooling import majority, paint
from methods.shls.segmentation import FrameFeatures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Projection = Literal["pca", "tsne"]

BYTES = 4
"""Of a float32."""


def outlined(image: RGB, superpixels: NDArray[np.integer[Any]]) -> RGB:
    """An image with the borders of its superpixels drawn in yellow."""
    from skimage.segmentation import mark_boundaries

    marked = mark_boundaries(image, superpixels, color=(1, 0.9, 0), mode="inner")
    return (marked * 255).astype(np.uint8)


def project(vectors: NDArray[np.float32], how: Projection) -> NDArray[np.float64]:
    """Vectors ``(N, S)`` to ``(N, 2)``, of unit length first, since only angles count."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.maximum(lengths, 1e-12)
    if how == "pca":
        centred = unit - unit.mean(0)
        _, _, axes = np.linalg.svd(centred, full_matrices=False)
        return np.asarray(centred @ axes[:2].T, np.float64)
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise ConfigError(
            "--projection tsne", "no scikit-learn", "that package", "Install it, or use pca."
        ) from error
    perplexity = min(30.0, max(2.0, (len(unit) - 1) / 3))
    found = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(unit)
    return np.asarray(found, np.float64)


def compression(features: FrameFeatures) -> dict[str, float]:
    """Sizes of one frame's description, in bytes.

    Returns:
        ``superfeatures``; ``feature_maps``: the two maps that superfeatures are pooled from, at
        strides 2 and 4; and their ratio.
    """
    superfeatures = BYTES * features.superfeatures.numel()
    info = features.info.shape[1] * features.quarter[0].numel()
    maps = BYTES * (features.half.numel() + features.quarter.numel() - info)
    return {
        "superpixels": features.count,
        "superfeatures": superfeatures,
        "feature_maps": maps,
        "ratio": maps / superfeatures,
    }


def _colours(labels: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    return np.asarray(PALETTE, float).reshape(-1, 3)[labels] / 255


def superpixel_figure(images: list[RGB], maps: list[NDArray[np.integer[Any]]]) -> Figure:
    """Superpixels over frames."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(images), figsize=(7 * len(images), 4.2), squeeze=False)
    for axis, image, superpixels in zip(axes[0], images, maps, strict=True):
        axis.imshow(outlined(image, superpixels))
        axis.set_title(f"{int(superpixels.max())} superpixels")
        axis.set_axis_off()
    figure.tight_layout()
    return figure


def latent_figure(
    vectors: NDArray[np.float32], labels: NDArray[np.integer[Any]], how: Projection
) -> Figure:
    """Superfeatures in two dimensions, coloured by object; background is grey."""
    import matplotlib.pyplot as plt

    points = project(vectors, how)
    figure, axis = plt.subplots(figsize=(6, 5))
    for label in np.unique(labels):
        member = labels == label
        colour = (0.7, 0.7, 0.7) if label == 0 else tuple(_colours(np.array([label]))[0])
        name = "background" if label == 0 else f"object {label}"
        axis.scatter(*points[member].T, s=9, color=colour, label=name, alpha=0.8, linewidths=0)
    axis.legend(frameon=False)
    axis.set_title(f"Superfeatures ({how.upper().replace('TSNE', 't-SNE')})")
    axis.set_xticks([])
    axis.set_yticks([])
    figure.tight_layout()
    return figure


def attention_figure(
    image: RGB, features: FrameFeatures, attention: Tensor, labels: NDArray[np.uint8]
) -> Figure:
    """The four attention maps of one object, and what the nearest neighbours alone would say."""
    import matplotlib.pyplot as plt

    titles = ("k-NN: object", "k-NN: best other", "centroids: object", "centroids: best other")
    maps = paint(attention, features.superpixels).cpu().numpy()
    figure, axes = plt.subplots(1, 5, figsize=(22, 3.2))
    for axis, painted, title in zip(axes, maps, titles, strict=False):
        axis.imshow(painted, vmin=0, vmax=1, cmap="viridis")
        axis.set_title(title)
    axes[-1].imshow(overlay(image, labels))
    axes[-1].set_title("pre-segmentation")
    for axis in axes:
        axis.set_axis_off()
    figure.tight_layout()
    return figure


@torch.inference_mode()
def draw(method: SHLS, video: Video, frames: int, how: Projection, out: Path) -> list[Path]:
    """Segment the beginning of a video and draw all figures.

    Args:
        method: built with the weights to look at.
        video: with a mask in its first frame.
        frames: how many frames to go through, 2 at least.
        how: projection of the latent space.
        out: folder.

    Returns:
        The files written.

    Raises:
        ConfigError: too short a video.
    """
    import matplotlib.pyplot as plt

    if min(frames, len(video)) < 2:
        raise ConfigError("--frames", f"{min(frames, len(video))}", "2 at least", "Raise it.")
    first = video.frame(0)
    mask = video.load_mask(0)
    ids = object_ids(mask)
    state = method.begin(first, mask)
    sequence = state.sequence
    shown = [first.image]
    maps = [sequence.first[0].frame.superpixels.cpu().numpy()]
    vectors, labels = [], []
    annotated = set(video.annotated)

    def collect(features: FrameFeatures, index: int) -> None:
        if index not in annotated:
            return
        truth = shrink_labels(labels_of(video.load_mask(index), ids), state.size)
        on_device = torch.from_numpy(truth).to(features.superpixels.device).long()
        found = majority(features.superpixels, on_device, features.count, len(ids) + 1)
        vectors.append(features.superfeatures.float().cpu().numpy())
        labels.append(found.cpu().numpy())

    collect(sequence.first[0].frame, 0)
    for index in range(1, min(frames, len(video))):
        frame = video.frame(index)
        state, _ = method.step(state, frame)
        collect(sequence.previous[0].frame, index)
    features = sequence.previous[0].frame
    shown.append(frame.image)
    maps.append(features.superpixels.cpu().numpy())
    small = [resized(image, state.size) for image in shown]
    out.mkdir(parents=True, exist_ok=True)
    figures = {
        "superpixels.png": superpixel_figure(small, maps),
        "latent_space.png": latent_figure(np.concatenate(vectors), np.concatenate(labels), how),
        "attention.png": attention_figure(
            small[-1], features, sequence.previous[0].attention, sequence.presegmentation
        ),
    }
    for name, figure in figures.items():
        figure.savefig(out / name, dpi=110)
        plt.close(figure)
    with (out / "compression.csv").open("w", newline="") as file:
        sizes = compression(features)
        writer = csv.DictWriter(file, list(sizes))
        writer.writeheader()
        writer.writerow(sizes)
    return [*(out / name for name in figures), out / "compression.csv"]


def main(
    out: Annotated[Path, typer.Option(help="Folder for the figures.")],
    data: Annotated[str, typer.Option(help="A dataset of videos.")] = "davis16",
    root: Annotated[Path | None, typer.Option(help="The data's folder.")] = None,
    sequence: Annotated[str | None, typer.Option(help="Default: the first one.")] = None,
    frames: Annotated[int, typer.Option(min=2, help="Frames to go through.")] = 8,
    preset: Annotated[str | None, typer.Option(help="tiny or paper.")] = None,
    weights: Annotated[Path | None, typer.Option(help="A checkpoint.")] = None,
    projection: Annotated[str, typer.Option(help="pca or tsne.")] = "pca",
    settings: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE.")] = None,
) -> None:
    """Superpixels, latent space, attention maps and compression of SHLS on a video."""
    if projection not in ("pca", "tsne"):
        raise ConfigError(f"--projection {projection}", "no such one", "pca or tsne", "Correct it.")
    method = build_segmenter("shls", preset, settings or [], "auto", 0, weights)
    assert isinstance(method, SHLS)
    found, split = get_dataset(data)
    dataset = found(find_root(found, root), split)
    if not isinstance(dataset, VideoDataset):
        raise ConfigError(f"--data {data}", "still images", "videos", "For instance davis16.")
    video = dataset.video(sequence or dataset.sequences()[0])
    how: Projection = "pca" if projection == "pca" else "tsne"
    for path in draw(method, video, frames, how, out):
        typer.echo(path)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except BenchError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)

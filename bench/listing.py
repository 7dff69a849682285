"""Tables of what is registered, for `list` and `data check`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from rich.table import Table
from rich.text import Text

from bench.config import method_config, setting_names
from bench.dataset import Dataset, ImageDataset, VideoDataset, find_root
from bench.errors import BenchError
from bench.method import Trainable
from bench.registry import DATASETS, ENGINES, FAILURES, METHODS, Failure, discover


def _origin(group: str, name: str) -> str:
    for entry in entry_points(group=f"bench.{group}"):
        if entry.name == name and entry.dist is not None:
            return entry.dist.name
    return "this suite"


def _failures(group: str) -> list[Failure]:
    return [failure for failure in FAILURES if failure.group == f"bench.{group}"]


def methods() -> tuple[Table, list[Failure]]:
    """Every method with its labels, presets (the default starred) and settings."""
    discover("methods")
    table = Table.grid(padding=(0, 2))
    for name, method in sorted(METHODS.module_dict.items()):
        config = method_config(name, method)
        presets = [
            f"{preset}*" if preset == config.default_preset else preset for preset in config.presets
        ]
        lines = [
            f"{method.card.title}. {method.card.description}",
            f"labels: {method.card.regime.summary}",
            f"presets: {', '.join(presets) or 'none'}",
            f"settings: {', '.join(setting_names(method.Settings)) or 'none'}",
            *(
                [f"training: {', '.join(setting_names(method.TrainingSettings))}"]
                if issubclass(method, Trainable)
                else []
            ),
            f"from: {_origin('methods', name)}\n",
        ]
        table.add_row(Text(name, style="bold"), Text("\n".join(lines)))
    return table, _failures("methods")


def data() -> tuple[Table, list[Failure]]:
    """Every dataset with its splits and whether it is found here."""
    discover("datasets")
    table = Table("name", "what it is", "kind", "splits", "found here", "from", show_lines=True)
    for name, dataset in sorted(DATASETS.module_dict.items()):
        kind = "videos" if issubclass(dataset, VideoDataset) else "still images"
        table.add_row(
            name, dataset.title, kind, ", ".join(dataset.splits), _found(dataset),
            _origin("datasets", name),
        )  # fmt: skip
    return table, _failures("datasets")


def _found(dataset: type[Dataset]) -> str:
    if not dataset.folders:
        return "needs no files"
    try:
        return str(find_root(dataset, None))
    except BenchError:
        return "no (--root or BENCH_DATA)"


def engines() -> tuple[Table, list[Failure]]:
    """Every engine and whether it can be used here."""
    discover("engines")
    table = Table("name", "where jobs run", "usable here", "from")
    for name, engine in sorted(ENGINES.module_dict.items()):
        table.add_row(name, engine.title, engine.why_not() or "yes", _origin("engines", name))
    return table, _failures("engines")


TABLES: dict[str, Callable[[], tuple[Table, list[Failure]]]] = {
    "methods": methods,
    "data": data,
    "engines": engines,
}


def describe_contents(dataset: Dataset) -> str:
    """How much is there, in one phrase."""
    if isinstance(dataset, ImageDataset):
        return f"{len(dataset)} images"
    assert isinstance(dataset, VideoDataset)
    frames = annotated = broken = 0
    for name in dataset.sequences():
        try:
            video = dataset.video(name)
        except BenchError:
            broken += 1
            continue
        frames += len(video)
        annotated += len(video.annotated)
    text = f"{len(dataset)} sequences, {frames} frames, {annotated} with masks"
    return text + (f", {broken} sequences unusable" if broken else "")

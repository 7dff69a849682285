"""Planning the semantic protocol: which classes and sequences a method can be scored on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.config import RunConfig
from bench.dataset import VideoDataset
from bench.errors import ConfigError
from bench.method import Method, Semantic
from bench.semantic import MOST_CLASSES, ClassMapping


@dataclass(frozen=True)
class Share:
    """What a method and a dataset share.

    Attributes:
        mapping: of their classes; None where there is a reason why not.
        left_out: sequences none of whose objects has a shared class, in order.
        reason: why those are left out, or everything is; empty where nothing is.
    """

    mapping: ClassMapping | None
    left_out: tuple[str, ...] = ()
    reason: str = ""


def given_classes(config: RunConfig) -> ClassMapping | None:
    """The mapping that a run names; None where classes go by their names.

    Raises:
        ConfigError: no such mapping, or a protocol that knows no classes.
    """
    if config.classes is None:
        return None
    if config.protocol != "semantic":
        raise ConfigError(
            f"--classes {config.classes}",
            f"the {config.protocol} protocol, which knows no classes",
            "--protocol semantic",
            "Add it, or leave --classes out.",
        )
    return ClassMapping.read(config.classes)


def share(
    given: ClassMapping | None,
    method: Method,
    dataset: VideoDataset,
    sequences: Sequence[str],
) -> Share:
    """What a method and a dataset share.

    Args:
        given: the run's mapping; None for the same names in both. All of the dataset's sequences
            are looked at for these, so that classes do not depend on the chosen ones.
        method: built, with the mix-in :class:`bench.method.Semantic`.
        dataset: opened.
        sequences: those asked for.
    """
    assert isinstance(method, Semantic)
    names = method.class_names()
    if len(names) > MOST_CLASSES:
        return Share(None, reason=f"its {len(names)} classes are more than a mask has room for")
    try:
        mapping = given or ClassMapping.by_name(names, _categories(dataset))
    except ConfigError as error:
        return Share(None, reason=f"{error.found}; {error.remedy}".rstrip("."))
    if missing := mapping.missing(names):
        has = f"it has {', '.join(names)}"
        return Share(None, reason=f"it has no class for {', '.join(missing)}; {has}")
    left_out = [name for name in sequences if not mapping.shows(dataset.video(name))]
    reason = f"no object has one of the shared classes ({', '.join(mapping.shared)})"
    if len(left_out) == len(sequences):
        return Share(None, reason=reason)
    return Share(mapping, tuple(left_out), reason if left_out else "")


def _categories(dataset: VideoDataset) -> list[str]:
    """Names of a dataset's categories, sorted."""
    infos = [info for video in dataset for info in video.objects.values()]
    return sorted({info.category for info in infos if info.category is not None})

"""What rendered datasets share: checked settings, plans by name, fingerprints, photographs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import cv2
import numpy as np
from pydantic import BaseModel, ValidationError

from bench.dataset import Dataset, Problem, VideoDataset
from bench.errors import BenchError, ConfigError
from datasets._files import refuse_unknown, unknown_sequence
from datasets.synthetic.photos import photo, photo_path
from datasets.synthetic.script import Plan

HOW_TO_GET = (
    "It needs no files: it is rendered from photographs inside the installed packages "
    "scikit-image and matplotlib."
)

SettingsT = TypeVar("SettingsT", bound=BaseModel)


def checked_settings(
    cls: type[Dataset],
    model: type[SettingsT],
    settings: Mapping[str, Any],
    expected: Mapping[str, str] | None = None,
) -> SettingsT:
    """Settings of a model, with an error that names the wrong one.

    Args:
        cls: the dataset, for messages.
        model: of its settings.
        settings: as the user gave them.
        expected: what a field may be, in words; None for pydantic's.

    Raises:
        ConfigError: an unknown setting, or a value out of range.
    """
    refuse_unknown(cls, settings, list(model.model_fields))
    try:
        return model(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        words = expected[field] if expected else first["msg"].removeprefix("Input should be ")
        default = model.model_fields[field].default
        remedy = f"Change {field} or leave it out for its default, {default!r}."
        raise ConfigError(f"{cls.name}: {field}", repr(first["input"]), words, remedy) from None


def photo_problems(plans: Iterable[Plan]) -> list[Problem]:
    """What is wrong with the photographs of some plans: missing or unreadable files."""
    problems = []
    for name in sorted({name for plan in plans for name in plan.photos}):
        try:
            path = photo_path(name)
            if path.suffix == ".npz":
                np.load(path).close()
            else:
                photo(name)
        except (BenchError, OSError, ValueError) as error:
            where = error.where if isinstance(error, BenchError) else str(path)
            problems.append(Problem(Path(where), f"missing or unreadable ({error})"))
    return problems


class RenderedVideos(VideoDataset):
    """Videos that need no files, each rendered after a plan."""

    folders: ClassVar[tuple[str, ...]] = ()
    how_to_get: ClassVar[str] = HOW_TO_GET
    split: str
    settings: BaseModel
    plans: dict[str, Plan]

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Never: no folder holds it."""
        return False

    def plan_of(self, sequence: str) -> Plan:
        """The plan of a sequence; :class:`DataError` where there is none of that name."""
        if sequence not in self.plans:
            raise unknown_sequence(f"{self.name}-{self.split}", sequence, self.sequences())
        return self.plans[sequence]

    def sequences(self) -> list[str]:
        """Names of the plans, in the order of their numbers."""
        return list(self.plans)

    def hash_of(self, sequence: str, *version: int) -> str:
        """Hash of all that a sequence's pixels come from: settings, photographs, generator.

        The version of OpenCV is part of it, because resampling and GrabCut may differ in the last
        bit between versions. The number of sequences is not: it changes no pixel.
        """
        plan = self.plan_of(sequence)
        settings = sorted(self.settings.model_dump(exclude={"sequences"}).items())
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr((*version, cv2.__version__, settings, plan)).encode())
        for name in plan.photos:
            digest.update(name.encode() + b"\0" + photo_path(name).read_bytes())
        return digest.hexdigest()

    def verify(self) -> list[Problem]:
        """Check that every photograph of this split is installed and readable."""
        return photo_problems(self.plans.values())

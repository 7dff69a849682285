"""The command `export`: a run's masks as one archive, for a benchmark's server or for anybody.

Everything is checked before a byte is written: a server counts an upload that it cannot read, and
some allow only a few. The archives are the same bytes wherever they are made.

Layouts: the DAVIS challenge's semi-supervised track takes ``<sequence>/<frame>.png`` of every frame
(https://davischallenge.org); YouTube-VOS takes ``Annotations/<video>/<frame>.png`` of the frames
that it annotates (https://youtube-vos.org). Both want palette PNGs whose indices are object ids.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from bench.errors import ConfigError, DataError, MaskError, ProblemsError
from bench.masks import decode_mask_and_mode
from bench.plan import DataChoice, mask_folder
from bench.store import is_done, read_json
from bench.video import VOID, Video, object_ids, present_values

FIRST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can hold; all members carry it, so that equal masks give equal
archives."""

ANNOTATION_STEP = 5
"""YouTube-VOS annotates every fifth frame (Xu et al., YouTube-VOS, ECCV 2018)."""


@dataclass(frozen=True)
class Choice:
    """Which of a run's results; None where there is only one.

    Attributes:
        method: registered name.
        variant: as tables show it; empty for the method's default settings.
        data: the dataset's label, as ``--data`` named it.
        seed: of the method.
    """

    method: str | None = None
    variant: str | None = None
    data: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Submission:
    """What a server demands.

    Attributes:
        datasets: registered names of the datasets that it scores.
        folder: where the sequences' folders lie in the archive; empty for its root.
        frames: indices of a video's frames that belong in the archive.
    """

    datasets: tuple[str, ...]
    folder: str
    frames: Callable[[Video], Sequence[int]]


def every_frame(video: Video) -> Sequence[int]:
    """All frames."""
    return range(len(video))


def annotated_frames(video: Video) -> Sequence[int]:
    """Every fifth frame, counted from the first one with a mask, and all that have a mask.

    Masks of the validation set are public only where objects enter, so the others' places follow
    from the frames' numbers; the archive of all frames has them, too.

    Raises:
        DataError: frames that are not named by numbers, or no mask at all.
    """
    try:
        numbers = [int(name) for name in video.frame_names]
        start = numbers[video.annotated[0]]
    except (ValueError, IndexError):
        where, found = f"{video.dataset}/{video.name}", "frames without numbers, or no first mask"
        raise DataError(where, found, "frames named 00000, 00005, ...", "Mend the data.") from None
    given = set(video.annotated)
    return [
        index
        for index, number in enumerate(numbers)
        if index in given or (number - start) % ANNOTATION_STEP == 0
    ]


SUBMISSIONS: Mapping[str, Submission] = {
    "davis17": Submission(("davis17",), "", every_frame),
    "youtube-vos": Submission(("ytvos18", "ytvos19"), "Annotations", annotated_frames),
}
"""What ``--submission`` takes."""


class Archive(NamedTuple):
    """An archive that was written: where, and of how many sequences and masks."""

    path: Path
    sequences: int
    masks: int


Members = dict[str, Path]
"""Files by their names in an archive."""


@dataclass(frozen=True)
class _Stored:
    """A planned job of a run, as its plan records it."""

    run: Path
    record: Mapping[str, Any]

    @property
    def key(self) -> Mapping[str, Any]:
        """What a user chooses by, under the options' names."""
        fields = {name: self.record[name] for name in ("method", "variant", "seed")}
        return fields | {"data": self.record["data"]["label"]}

    @property
    def sequence(self) -> str:
        return str(self.record["sequence"])

    @property
    def why_no_masks(self) -> str | None:
        if is_done(self.run, self.record["id"]):
            return None
        return f"not finished; continue with `python -m bench run --resume {self.run}`"

    @property
    def masks(self) -> Path:
        key = self.key
        place = (key["method"], key["variant"], key["data"], self.sequence, key["seed"])
        return self.run / mask_folder(*place)

    def open_data(self) -> Any:
        data = self.record["data"]
        root = Path(data["root"]) if data["root"] else None
        choice = DataChoice(data["label"], data["name"], data["split"], root, data["settings"])
        return choice.open()


def export(
    runs: Sequence[Path],
    choice: Choice,
    submission: str | None = None,
    out: Path | None = None,
    masks: Path | None = None,
) -> list[Archive]:
    """Write archives of a run's masks.

    Args:
        runs: folders of runs; a submission may be spread over several.
        choice: which results, where there are several.
        submission: a name in :data:`SUBMISSIONS`, or None.
        out: the submission's archive.
        masks: an archive of one folder per sequence, as `python -m bench evaluate` reads it, of
            whatever sequences the runs have; or None.

    Returns:
        What was written. Nothing is, unless all of it can be.

    Raises:
        ConfigError: options that do not go together, or do not tell one result.
        StoreError: a folder that is no run.
        DataError: the dataset is no longer there.
        ProblemsError: lists every sequence and frame that is missing or wrong.
    """
    _check_options(submission, out, masks)
    stored = [
        _Stored(run, record) for run in runs for record in read_json(run / "plan.json")["jobs"]
    ]
    planned: dict[Path, Members] = {}
    if submission and out:
        planned[out] = _submission_members(stored, choice, SUBMISSIONS[submission])
    if masks:
        planned[masks] = _plain_members(stored, choice)
    _write_together(planned)
    return [
        Archive(path, len({PurePosixPath(name).parent for name in members}), len(members))
        for path, members in planned.items()
    ]


def _check_options(submission: str | None, out: Path | None, masks: Path | None) -> None:
    names = ", ".join(SUBMISSIONS)
    if (submission is None) != (out is None):
        option, lacking = ("--out", "--submission") if out else ("--submission", "--out")
        raise ConfigError(option, f"no {lacking}", "both", f"Add {lacking}; layouts are {names}.")
    if out is None and masks is None:
        raise ConfigError("export", "nothing to write", "--submission, or --masks", "Add one.")
    if submission is not None and submission not in SUBMISSIONS:
        where = f"--submission {submission}"
        raise ConfigError(where, "no such layout", f"one of {names}", "Correct it.")
    if out is not None and masks is not None and out.resolve() == masks.resolve():
        raise ConfigError("--masks", f"{masks}, as --out", "another file", "Name another one.")
    for option, path in (("--out", out), ("--masks", masks)):
        if path is not None and (path.suffix.lower() != ".zip" or path.is_dir()):
            raise ConfigError(f"{option} {path}", "no name of an archive", "FILE.zip", "Rename it.")


def _chosen(stored: Sequence[_Stored], choice: Choice) -> dict[str, _Stored]:
    """The jobs of one method, variant, dataset and seed, by sequence.

    Raises:
        ConfigError: none, several, or results that do not belong together.
    """
    found = list(stored)
    for option, wanted in vars(choice).items():
        there = list(dict.fromkeys(repr(job.key[option]) for job in found))
        found = [job for job in found if wanted is None or job.key[option] == wanted]
        if not found:
            where, known = f"--{option} {wanted}", ", ".join(there) or "a run with jobs"
            raise ConfigError(where, "no such result", known, "Choose what the runs have.")
        if wanted is None and len(there) > 1:
            where = f"--{option}"
            raise ConfigError(where, f"several: {', '.join(there)}", "one", f"Add {where}.")
    by_sequence: dict[str, _Stored] = {}
    for job in found:
        before = by_sequence.setdefault(job.sequence, job)
        if before.why_no_masks:
            by_sequence[job.sequence] = job
        for field in ("settings", "weights", "protocol"):
            _check_alike(found[0], job, field)
        _check_alike(before, job, "id")
    return by_sequence


def _check_alike(one: _Stored, other: _Stored, field: str) -> None:
    """Refuse results of several systems under one name, and two results for one sequence."""
    if one.record[field] != other.record[field]:
        what = f"another result for {one.sequence}" if field == "id" else f"other {field}"
        where, found = str(other.run), f"{what} than in {one.run}"
        raise ConfigError(where, found, "one system, one result", "Name fewer runs.")


def _submission_members(stored: Sequence[_Stored], choice: Choice, layout: Submission) -> Members:
    """Files of a server's archive, all of them checked."""
    where = "--submission"
    fitting = [job for job in stored if job.record["data"]["name"] in layout.datasets]
    if not fitting:
        found = ", ".join(sorted({job.key["data"] for job in stored})) or "nothing"
        wanted = f"a run on {' or '.join(layout.datasets)}"
        raise ConfigError(where, f"runs on {found}", wanted, "Run the method on it first.")
    jobs = _chosen(fitting, choice)
    one = next(iter(jobs.values()))
    if one.record["protocol"] != "semi-supervised":
        found = f"a run of the {one.record['protocol']} protocol"
        raise ConfigError(where, found, "a semi-supervised run", "Run it with first masks.")
    dataset = one.open_data()
    sequences = dataset.sequences()
    members: Members = {}
    problems: list[str] = []
    # A copy of the data may hold fewer sequences than the server asks for.
    official = dataset.official[dataset.split]
    if len(sequences) < official:
        problems.append(f"the data's list: {len(sequences)} of {official} sequences; complete it")
    for sequence in sequences:
        job = jobs.get(sequence)
        if job is None:
            problems.append(f"{sequence}: not in these runs; run the method on the whole split")
            continue
        if reason := job.why_no_masks:
            problems.append(f"{sequence}: {reason}")
            continue
        video = dataset.video(sequence)
        known = _KnownIds(video)
        for index in layout.frames(video):
            path = job.masks / f"{video.frame_names[index]}.png"
            members[str(PurePosixPath(layout.folder, sequence, path.name))] = path
            problems += _mask_problems(path, video.size, known)
    _refuse(one.run, problems)
    return members


def _plain_members(stored: Sequence[_Stored], choice: Choice) -> Members:
    """Files of an archive with one folder per sequence."""
    members: Members = {}
    problems: list[str] = []
    jobs = _chosen(stored, choice)
    for sequence, job in jobs.items():
        if reason := job.why_no_masks:
            problems.append(f"{sequence}: {reason}")
            continue
        paths = sorted(job.masks.glob("*.png"))
        if len(paths) != job.record["frames"]:
            found = f"{len(paths)} masks of {job.record['frames']} frames"
            problems.append(f"{job.masks}: {found}; run the sequence again")
        for path in paths:
            members[str(PurePosixPath(sequence, path.name))] = path
            problems += _mask_problems(path, None, None)
    _refuse(next(iter(jobs.values())).run, problems)
    return members


class _KnownIds:
    """The ids that a video's given masks introduce; masks are decoded only as far as needed."""

    def __init__(self, video: Video) -> None:
        self._video, self._unread = video, list(video.annotated)
        self.ids: set[int] = set()

    def unknown(self, ids: Iterable[int]) -> list[int]:
        """Those of ``ids`` that no given mask has."""
        left = set(ids) - self.ids
        while left and self._unread:
            self.ids |= set(object_ids(self._video.load_mask(self._unread.pop(0))))
            left -= self.ids
        return sorted(left)


def _mask_problems(path: Path, size: tuple[int, int] | None, known: _KnownIds | None) -> list[str]:
    """What a server would refuse or misread in one mask."""
    try:
        mask, mode = decode_mask_and_mode(path, path)
    except MaskError as error:
        return [f"{path}: {error.found}"]
    problems = []
    if mode != "P":
        problems.append(f"{path}: mode {mode}, not palette (P)")
    if size is not None and mask.shape != size:
        found = f"{mask.shape[1]}x{mask.shape[0]} pixels"
        problems.append(f"{path}: {found}, but the frames have {size[1]}x{size[0]}")
    if VOID in present_values(mask):
        problems.append(f"{path}: void (255), which is no object")
    unknown = known.unknown(object_ids(mask)) if known is not None else []
    if known is not None and unknown:
        problems.append(f"{path}: ids {unknown}, but the given masks have {sorted(known.ids)}")
    return problems


def _refuse(run: Path, problems: list[str]) -> None:
    if problems:
        raise ProblemsError(run, problems, "Mend these first; nothing was written.")


def _write_together(planned: Mapping[Path, Members]) -> None:
    """Write all archives or none: under temporary names first, renamed when all are there."""
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in planned}
    try:
        for path, members in planned.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_archive(temporary[path], members)
        for path, written in temporary.items():
            written.replace(path)
    finally:
        for written in temporary.values():
            written.unlink(missing_ok=True)


def write_archive(path: Path, members: Members) -> None:
    """Write a zip whose bytes depend on names and contents alone.

    Members are stored as they are: PNGs are compressed already, and what a compressor writes
    differs between versions of zlib.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, FIRST_ZIP_TIME)
            entry.create_system = 3  # Unix, wherever it is written
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, members[name].read_bytes())

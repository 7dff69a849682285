"""Scoring masks that anybody made: a folder or archive of PNGs against a dataset.

Every PNG is decoded once. Whatever is wrong with the masks is gathered while scoring, so that one
error lists all of it; files are written only after everything succeeded.

This path imports neither torch nor pandas, to stay small and to start fast.
"""

from __future__ import annotations

import abc
import csv
import difflib
import io
import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from bench.dataset import VideoDataset
from bench.errors import BenchError, ConfigError, DataError, MaskError, ProblemsError
from bench.masks import decode_mask_and_mode
from bench.metrics import (
    COLUMNS,
    DatasetFigures,
    ScoringRule,
    SequenceResult,
    SequenceScorer,
    dataset_figures,
)
from bench.video import VOID, Mask, Video, object_ids, present_values

SUFFIX = ".png"

MOST_UNKNOWN_IDS = 10
"""More different values than this that are no object's id mean that a mask holds no ids."""

IGNORED_FOLDERS = ("__MACOSX",)
"""Folders that archive tools leave behind."""

IGNORED_FILES = ("Thumbs.db", "desktop.ini")

SHOWN = 5
"""How many examples a message gives."""

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)`` after every sequence."""


# --- where masks come from ------------------------------------------------------------------


class MaskSource(abc.ABC):
    """Masks by sequence and file name.

    Attributes:
        location: the folder or archive.
        folder: path inside it of the folder that holds the sequences; empty for itself.
    """

    def __init__(self, location: Path) -> None:
        self.location = location
        self.folder = PurePosixPath()

    @abc.abstractmethod
    def folders(self, inside: PurePosixPath) -> list[str]:
        """Names of the folders inside a folder, sorted."""

    @abc.abstractmethod
    def files(self, sequence: str) -> list[str]:
        """Names of the files of a sequence, sorted; hidden ones are left out."""

    @abc.abstractmethod
    def read(self, sequence: str, file: str) -> bytes:
        """A file's content; OSError where it cannot be read."""

    def name(self, sequence: str, file: str = "") -> Path:
        """What to call a file in messages."""
        return Path(os.path.join(self.location, self.folder, sequence, file))  # noqa: PTH118

    def find(self, sequences: Sequence[str]) -> None:
        """Choose the folder that holds the sequences: the location itself or one inside it.

        Raises:
            DataError: several folders could be meant.
        """
        if set(self.folders(PurePosixPath())) & set(sequences):
            return
        inside = {
            name: len(set(self.folders(PurePosixPath(name))) & set(sequences))
            for name in self.folders(PurePosixPath())
        }
        candidates = [name for name, count in inside.items() if count]
        if len(candidates) > 1:
            raise DataError(
                self.location,
                f"several folders with sequences: {', '.join(candidates)}",
                "the masks of one system",
                f"Name one of them, such as {self.location / candidates[0]}.",
            )
        if candidates:
            self.folder = PurePosixPath(candidates[0])


class _FolderMasks(MaskSource):
    def folders(self, inside: PurePosixPath) -> list[str]:
        return sorted(
            path.name
            for path in (self.location / inside).iterdir()
            if path.is_dir() and not _is_litter(path.name)
        )

    def files(self, sequence: str) -> list[str]:
        with os.scandir(self.name(sequence)) as entries:
            return sorted(
                entry.name for entry in entries if entry.is_file() and not _is_litter(entry.name)
            )

    def read(self, sequence: str, file: str) -> bytes:
        # For thousands of files, joining paths as text costs a tenth of joining them as paths.
        with open(os.path.join(self.location, self.folder, sequence, file), "rb") as opened:  # noqa: PTH118, PTH123
            return opened.read()


class _ZipMasks(MaskSource):
    """Reads members as they are needed; nothing is extracted."""

    def __init__(self, location: Path) -> None:
        super().__init__(location)
        self._open()

    def _open(self) -> None:
        self._archive = zipfile.ZipFile(self.location)
        self._members: dict[PurePosixPath, dict[str, str]] = {}
        for member in self._archive.namelist():
            # Some Windows tools write backslashes; entries of folders add nothing.
            path = PurePosixPath(member.replace("\\", "/"))
            if not member.endswith(("/", "\\")) and not any(map(_is_litter, path.parts)):
                self._members.setdefault(path.parent, {})[path.name] = member

    # An open archive cannot travel to another process; every process opens its own.
    def __getstate__(self) -> tuple[Path, PurePosixPath]:
        return self.location, self.folder

    def __setstate__(self, state: tuple[Path, PurePosixPath]) -> None:
        self.location, self.folder = state
        self._open()

    def folders(self, inside: PurePosixPath) -> list[str]:
        depth = len(inside.parts)
        return sorted(
            {
                folder.parts[depth]
                for folder in self._members
                if len(folder.parts) > depth and folder.parts[:depth] == inside.parts
            }
        )

    def files(self, sequence: str) -> list[str]:
        return sorted(self._members.get(self.folder / sequence, {}))

    def read(self, sequence: str, file: str) -> bytes:
        member = self._members[self.folder / sequence][file]
        try:
            return self._archive.read(member)
        # RuntimeError: encrypted; NotImplementedError: unknown compression; EOFError: cut off.
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
            raise OSError(str(error)) from error


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name in IGNORED_FOLDERS or name in IGNORED_FILES


def open_masks(path: Path, sequences: Sequence[str]) -> MaskSource:
    """Open a folder or ``.zip`` with one folder per sequence, possibly one level down.

    Raises:
        DataError: neither a folder nor an archive, or it is not clear which folder is meant.
    """
    source: MaskSource
    expected = "a folder, or a .zip of one, with one folder of PNGs per sequence"
    if path.is_dir():
        source = _FolderMasks(path)
    elif not path.exists():
        raise DataError(path, "nothing", expected, "Check the path.")
    else:
        try:
            source = _ZipMasks(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(
                path, f"no readable archive ({error})", expected, "Pack or download it again."
            ) from error
    source.find(sequences)
    return source


# --- one sequence ---------------------------------------------------------------------------


@dataclass
class _Outcome:
    """What became of one sequence; travels back from a worker.

    Attributes:
        sequence: its name.
        result: its scores; None where there are problems.
        frame_names: names of its frames, by index.
        seen: whether an object's category is seen in training, by object id.
        problems: what must be mended, one line each, naming the file.
        warnings: what may be wrong.
        notes: what is worth knowing.
    """

    sequence: str
    result: SequenceResult | None = None
    frame_names: tuple[str, ...] = ()
    seen: dict[int, bool | None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class _Values:
    """The values that occur in predictions, to be judged when all objects are known.

    Attributes:
        first: first frame file of every set of values, and whether it is one that tells an
            object from background without naming its id.
        grey: every grey frame file with 255 among other values, and these values.
        crowded: every frame file with many values, and these values.
    """

    first: dict[tuple[tuple[int, ...], bool], str] = field(default_factory=dict)
    grey: dict[str, tuple[int, ...]] = field(default_factory=dict)
    crowded: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def add(self, file: str, values: tuple[int, ...], mode: str) -> None:
        self.first.setdefault((values, _is_binary(values, mode)), file)
        if mode == "L" and VOID in values and values not in ((0, VOID), (VOID,)):
            self.grey[file] = values
        if len(values) > MOST_UNKNOWN_IDS:
            self.crowded[file] = values


def _score_sequence(
    source: MaskSource, dataset: VideoDataset, sequence: str, rule: ScoringRule, strict: bool
) -> _Outcome:
    """Score one sequence; problems with files end up in the outcome.

    Raises:
        BenchError: the dataset cannot be scored at all.
    """
    outcome = _Outcome(sequence)
    try:
        video = dataset.video(sequence)
    except ProblemsError as error:
        outcome.problems += [f"ground truth: {problem}" for problem in error.problems]
        return outcome
    except DataError as error:
        outcome.problems.append(f"ground truth: {error}")
        return outcome
    if not video.scorable or not video.annotated:
        raise BenchError(
            f"{dataset.name}/{sequence}",
            "no public masks to score against",
            "a mask for every scored frame",
            "Make the archive for the benchmark's server instead: segment the split with "
            "`python -m bench run` and submit the run's masks, which are palette PNGs already.",
        )
    outcome.frame_names = video.frame_names
    if sequence not in source.folders(source.folder):
        outcome.problems.append(
            f"{source.name(sequence)}: no such folder; "
            f"write its masks there, {video.frame_names[0]}{SUFFIX} and so on"
        )
        return outcome
    _score_video(source, video, rule, strict, outcome)
    return outcome


def _score_video(
    source: MaskSource, video: Video, rule: ScoringRule, strict: bool, outcome: _Outcome
) -> None:
    """Decode and score the annotated frames of a video, into ``outcome``."""
    there = source.files(video.name)
    files = {_frame_name(file): file for file in there if file.lower().endswith(SUFFIX)}
    _note_extra_files(source, video, there, outcome)
    scorer = SequenceScorer(rule, len(video))
    values = _Values()
    for index in video.annotated:
        frame = video.frame_names[index]
        try:
            true = video.load_mask(index)
        except DataError as error:
            outcome.problems.append(f"ground truth: {error}")
            continue
        predicted: Mask | None = None
        if frame in files:
            try:
                predicted, mode = _decode(source, video.name, files[frame], true.shape)
            except DataError as error:
                outcome.problems.append(str(error))
            else:
                present = present_values(predicted)
                values.add(files[frame], present, mode)
                if _is_binary(present, mode):
                    predicted = _understand_binary(predicted, true, video, scorer)
        elif scorer.will_score(index):
            missing = source.name(video.name, f"{frame}{SUFFIX}")
            outcome.problems.append(f"{missing}: missing; write the mask of this frame")
        if predicted is None or not scorer.will_score(index):
            scorer.observe(index, true)
            continue
        try:
            scorer.update(index, predicted, true)
        except DataError as error:  # too many proposals: every further frame would say so again
            path = source.name(video.name, files[frame])
            outcome.problems.append(
                f"{path}: found {error.found}; expected {error.expected}. {error.remedy}"
            )
            return
    _judge_values(values, source, video, scorer.objects, rule, strict, outcome)
    if outcome.problems:
        return
    outcome.result = scorer.result()
    outcome.seen = {
        number: video.objects[number].seen if number in video.objects else None
        for number in outcome.result.objects
    }
    unscored = [number for number, s in outcome.result.objects.items() if not s.frames]
    if unscored:
        outcome.warnings.append(
            f"{video.name}: object {_listed(unscored)} has no scored frame under the rule "
            f"{rule.name!r}; it is left out of all means"
        )
    if not outcome.result.objects:
        outcome.warnings.append(f"{video.name}: its ground truth holds no object")


def _decode(
    source: MaskSource, sequence: str, file: str, shape: tuple[int, ...]
) -> tuple[Mask, str]:
    """Read a predicted mask; :class:`MaskError` for one that cannot be read or has another size."""
    name = source.name(sequence, file)
    try:
        data = source.read(sequence, file)
    except OSError as error:
        raise MaskError(
            name, f"an unreadable file ({error})", "a mask PNG", "Write or pack it again."
        ) from error
    mask, mode = decode_mask_and_mode(data, name)
    if mask.shape != shape:
        raise MaskError(
            name,
            f"{mask.shape[1]}x{mask.shape[0]} pixels",
            f"{shape[1]}x{shape[0]}, the size of the ground truth",
            "Resize label maps with nearest neighbour, or write them at the size of the frames.",
        )
    return mask, mode


def _is_binary(values: tuple[int, ...], mode: str) -> bool:
    """Whether a mask tells an object from background without naming its id."""
    return set(values) <= ({0, 1} if mode == "1" else {0, VOID})


def _understand_binary(predicted: Mask, true: Mask, video: Video, scorer: SequenceScorer) -> Mask:
    """Turn 0/255 (or 1 bit) into 0/id where the video has one object and ids are given."""
    known = set(scorer.objects or object_ids(true)) | set(video.objects)
    if scorer.rule.matched or len(known) != 1:
        return predicted
    return np.not_equal(predicted, 0).view(np.uint8) * np.uint8(known.pop())


def _judge_values(
    values: _Values,
    source: MaskSource,
    video: Video,
    objects: Sequence[int],
    rule: ScoringRule,
    strict: bool,
    outcome: _Outcome,
) -> None:
    """Find masks that hold no ids, and ids that no object has."""
    known = {0, *objects}
    # Without fixed ids the number of values is all there is to judge by.
    free = rule.matched or rule.foreground
    for file, found in sorted({**values.grey, **values.crowded}.items()):
        unknown = [value for value in found if value not in known and value != VOID]
        if rule.matched:
            bad = len(found) > 1 + rule.max_proposals and len(unknown) > MOST_UNKNOWN_IDS
        elif rule.foreground:
            bad = file in values.grey
        else:
            bad = bool(unknown) and (file in values.grey or len(unknown) > MOST_UNKNOWN_IDS)
        if bad:
            outcome.problems.append(
                f"{source.name(video.name, file)}: found {len(unknown)} values that are no "
                f"object's id ({_listed(unknown)}); an anti-aliased, interpolated or soft mask "
                "holds no ids: take the arg-max, resize with nearest neighbour, save the ids"
            )
    if free or outcome.problems:
        return
    extra: dict[int, str] = {}
    for (present, binary), file in values.first.items():
        for value in () if binary and len(objects) == 1 else present:
            if value not in known:
                extra.setdefault(value, file)
    if extra:
        line = (
            f"{video.name}: predicted ids {_listed(sorted(extra))} are not in the ground truth "
            f"(its ids: {_listed(objects) or 'none'}), first in {min(extra.values())}; "
            "they count for no object"
        )
        (outcome.problems if strict else outcome.warnings).append(line)


def _note_extra_files(
    source: MaskSource, video: Video, there: Sequence[str], outcome: _Outcome
) -> None:
    frames = set(video.frame_names)
    extra = [
        file
        for file in there
        if not file.lower().endswith(SUFFIX) or _frame_name(file) not in frames
    ]
    if extra:
        outcome.notes.append(
            f"{source.name(video.name)}: ignored {len(extra)} file(s) that belong to no frame, "
            f"such as {extra[0]}"
        )


def _frame_name(file: str) -> str:
    return file[: -len(SUFFIX)]


def _listed(items: Sequence[Any]) -> str:
    return ", ".join(map(str, items[:SHOWN])) + (", ..." if len(items) > SHOWN else "")


# --- all sequences --------------------------------------------------------------------------


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found.

    Attributes:
        dataset: the dataset's name.
        rule: the rule it was scored by.
        sequences: scores by sequence, in the dataset's order.
        frame_names: names of the frames by sequence.
        figures: aggregated figures.
        warnings: what may be wrong with the masks; to be shown.
        notes: what is worth knowing, such as ignored files.
    """

    dataset: str
    rule: ScoringRule
    sequences: Mapping[str, SequenceResult]
    frame_names: Mapping[str, tuple[str, ...]]
    figures: DatasetFigures
    warnings: list[str]
    notes: list[str]

    @property
    def headline(self) -> dict[str, float]:
        """The dataset's figures by name, in [0, 1]."""
        return self.figures.headline


def evaluate(
    masks: Path,
    dataset: VideoDataset,
    out: Path,
    frames: Path | None = None,
    *,
    strict: bool = False,
    workers: int = 1,
    sequences: Sequence[str] | None = None,
    rule: ScoringRule | None = None,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Score masks and write the scores as CSV.

    Args:
        masks: folder or ``.zip`` with one folder per sequence, possibly one level down, and in it
            one PNG of ids per scored frame, named like the frame.
        dataset: what was segmented.
        out: CSV with one row per object and a last row ``ALL``, the mean over objects.
        frames: CSV with one row per object and scored frame.
        strict: predicted ids that the ground truth does not have are an error, not a warning.
        workers: processes; results do not depend on their number.
        sequences: names of the sequences to score; None for all of the dataset's split.
        rule: how to score; None for the dataset's own rule.
        progress: called as ``progress(done, total)`` after every sequence.

    Returns:
        The scores, aggregated figures, warnings and notes.

    Raises:
        ProblemsError: lists every mask that is missing or cannot be scored; nothing is written.
        BenchError: wrong arguments, or a dataset without public masks; nothing is written.
    """
    rule = rule or dataset.scoring
    chosen = _choose(dataset, sequences)
    _check_outputs(out, frames)
    source = open_masks(masks, chosen)
    outcomes = _score_all(source, dataset, chosen, rule, strict, workers, progress)
    problems = [problem for outcome in outcomes for problem in outcome.problems]
    if problems:
        raise ProblemsError(masks, problems, "Mend these and evaluate again; nothing was written.")
    results = {o.sequence: o.result for o in outcomes if o.result is not None}
    seen = {(o.sequence, number): value for o in outcomes for number, value in o.seen.items()}
    result = EvaluationResult(
        dataset=dataset.name,
        rule=rule,
        sequences=results,
        frame_names={o.sequence: o.frame_names for o in outcomes},
        figures=dataset_figures(results, seen),
        warnings=[warning for o in outcomes for warning in o.warnings],
        notes=_extra_folders(source, dataset) + [note for o in outcomes for note in o.notes],
    )
    texts = {out: scores_csv(result)}
    if frames is not None:
        texts[frames] = frames_csv(result)
    _write_together(texts)
    return result


def _choose(dataset: VideoDataset, wanted: Sequence[str] | None) -> list[str]:
    """The sequences to score, in the dataset's order."""
    names = dataset.sequences()
    if wanted is None:
        return names
    for name in wanted:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise ConfigError(
                f"--sequences {name}",
                "no such sequence",
                f"sequences of {dataset.name}",
                f"Did you mean {near[0]!r}?" if near else f"The first of them is {names[0]!r}.",
            )
    return [name for name in names if name in set(wanted)]


def _check_outputs(out: Path, frames: Path | None) -> None:
    """Refuse outputs that could not be written, before the work is done."""
    if frames is not None and out.resolve() == frames.resolve():
        raise ConfigError("--frames", f"{frames}, as --out", "another file", "Name another one.")
    for path in [out] if frames is None else [out, frames]:
        home = next(parent for parent in path.absolute().parents if parent.exists())
        if path.is_dir() or not home.is_dir() or not os.access(home, os.W_OK):
            raise ConfigError(
                str(path),
                "a folder" if path.is_dir() else f"that {home} cannot be written to",
                "the name of a CSV file in a folder that can be written to",
                "Name another file.",
            )


def _extra_folders(source: MaskSource, dataset: VideoDataset) -> list[str]:
    extra = sorted(set(source.folders(source.folder)) - set(dataset.sequences()))
    if not extra:
        return []
    return [f"{source.name('')}: ignored folders of no sequence: {_listed(extra)}"]


_Job = tuple[MaskSource, VideoDataset, ScoringRule, bool]
_job: _Job | None = None
"""What all sequences of an evaluation share; set once in every worker."""


def _keep_memory() -> None:
    """Have the C library reuse the memory of masks instead of handing it back after every frame.

    Freeing one large block, which is never touched and so costs nothing, raises glibc's limits
    for that. Otherwise new pages for every mask can take a quarter of the time.
    """
    np.empty(24 << 20, np.uint8)


def _start_worker(job: bytes) -> None:
    global _job
    # Pickled for forked workers too: they would share the position in an archive that is open.
    _job = pickle.loads(job)
    _keep_memory()
    # A forked worker inherits the setting, and could wait for ever for threads that it has not.
    if cv2.getNumThreads() != 1:
        cv2.setNumThreads(1)
    # Ctrl-C reaches the whole group of processes; the parent alone decides what to do about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(sequence: str) -> _Outcome:
    assert _job is not None
    source, dataset, rule, strict = _job
    return _score_sequence(source, dataset, sequence, rule, strict)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep OpenCV from spreading tiny pieces of work over all cores."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _score_all(
    source: MaskSource,
    dataset: VideoDataset,
    sequences: Sequence[str],
    rule: ScoringRule,
    strict: bool,
    workers: int,
    progress: Progress | None,
) -> list[_Outcome]:
    """Score sequences, here or in worker processes; outcomes in the order of ``sequences``."""
    workers = min(workers, len(sequences))
    report = progress or (lambda done, total: None)
    report(0, len(sequences))
    if workers <= 1:
        outcomes = []
        _keep_memory()
        with _one_thread():
            for done, sequence in enumerate(sequences, start=1):
                outcomes.append(_score_sequence(source, dataset, sequence, rule, strict))
                report(done, len(sequences))
        return outcomes
    try:
        job = pickle.dumps((source, dataset, rule, strict))
    except Exception as error:  # pickling calls the dataset's own code, which may raise anything
        raise ConfigError(
            f"--workers {workers}",
            f"the dataset {dataset.name} cannot be sent to other processes ({error})",
            "a dataset that can be pickled",
            "Use --workers 1.",
        ) from error
    there = set(source.folders(source.folder))
    # Longest first, so that no worker starts on a long sequence when the others are done.
    by_length = sorted(sequences, key=lambda name: -len(source.files(name)) if name in there else 0)
    with _one_thread():
        found = _score_parallel(job, by_length, workers, report)
    return [found[name] for name in sequences]


def _start_method() -> str:
    """How workers start: forked, which takes no time, where nothing makes that unsafe.

    A fork copies locks that other threads hold, and torch misses threads of its own in it. System
    libraries other than Linux's do not allow for forks.
    """
    safe = threading.active_count() == 1 and "torch" not in sys.modules
    return "fork" if safe and sys.platform == "linux" else "spawn"


def _score_parallel(
    job: bytes, sequences: Sequence[str], workers: int, report: Progress
) -> dict[str, _Outcome]:
    context = multiprocessing.get_context(_start_method())
    pool = ProcessPoolExecutor(workers, context, _start_worker, (job,))
    found: dict[str, _Outcome] = {}
    try:
        pending: set[Future[_Outcome]] = {pool.submit(_work, name) for name in sequences}
        while pending:
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                outcome = future.result()
                found[outcome.sequence] = outcome
            report(len(found), len(sequences))
    except BrokenProcessPool as error:
        raise BenchError(
            f"--workers {workers}",
            "that a worker process died, most likely for want of memory",
            "workers that live until the end",
            "Use fewer workers.",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return found


# --- files ----------------------------------------------------------------------------------


def _cell(value: float) -> str:
    """Full precision; empty for NaN."""
    return "" if math.isnan(value) else repr(float(value))


def scores_csv(result: EvaluationResult) -> str:
    """One row per object and a last row ``ALL``, the mean over objects of every column."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("sequence", "object", *COLUMNS))
    for name, sequence in result.sequences.items():
        for number, scores in sequence.objects.items():
            writer.writerow((name, number, *map(_cell, scores.row)))
    writer.writerow(("ALL", "", *map(_cell, result.figures.object_mean.values())))
    return text.getvalue()


def frames_csv(result: EvaluationResult) -> str:
    """One row per object and scored frame."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("sequence", "object", "frame", "J", "F"))
    for name, sequence in result.sequences.items():
        frame_names = result.frame_names[name]
        for number, scores in sequence.objects.items():
            for index, j, f in zip(scores.frames, scores.j, scores.f, strict=True):
                writer.writerow((name, number, frame_names[index], _cell(j), _cell(f)))
    return text.getvalue()


def _write_together(texts: Mapping[Path, str]) -> None:
    """Write all files or none: each under a temporary name first, renamed when all are there."""
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in texts}
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary[path].write_text(text, encoding="utf-8")
        for path, written in temporary.items():
            written.replace(path)
    finally:
        for written in temporary.values():
            written.unlink(missing_ok=True)

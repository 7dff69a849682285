"""The page and the figures: whole, offline, well-formed, deterministic, small."""

from __future__ import annotations

import io
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from fake_runs import COPY, MASKS, SIZE, FakeJob, FakeMethod, Maker, two, with_frames, write_run
from PIL import Image

from reports import ReportFiles, build
from reports import galleries as galleries_module
from reports.combine import collect
from reports.drawing import styles
from reports.figures import draw_all, per_sequence, time_table
from reports.files import listed_files
from reports.galleries import galleries
from reports.page import make_page, render
from reports.tables import table_csv

VOID_TAGS = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Collects tags and checks that they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


FAILING = FakeMethod(
    "half",
    [two(0.6, 0.6)[0], FakeJob("bee", status="failed", reason="RuntimeError: <tensor> & co")],
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    folder = tmp_path_factory.mktemp("page")
    methods = [COPY, MASKS, FAILING, FakeMethod("gpu", skip="needs a CUDA device")]
    return build([write_run(folder / "one", methods)], folder / "report")


@pytest.fixture(scope="module")
def page(files: ReportFiles) -> Reader:
    return Reader(files.page.read_text(encoding="utf-8"))


def test_nothing_comes_from_outside(files: ReportFiles, page: Reader) -> None:
    text = files.page.read_text(encoding="utf-8")
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object", "base"}
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            value = attributes.get(name)
            if value is None:
                continue
            if value.startswith("#"):
                continue
            if value.startswith("data:image/webp;base64,"):
                continue
            assert (files.folder / value).is_file(), f"{tag} {name}={value}"
    assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttpRequest", text)


def test_links_inside_the_page_lead_somewhere(page: Reader) -> None:
    ids = Counter(attributes["id"] for _, attributes in page.tags if "id" in attributes)
    assert max(ids.values()) == 1
    for tag, attributes in page.tags:
        for name in ("href", "xlink:href", "aria-labelledby", "aria-describedby"):
            value = attributes.get(name) or ""
            if name.startswith("aria") and value:
                assert value in ids, (tag, value)
            elif value.startswith("#"):
                assert value[1:] in ids, (tag, value)


def test_the_page_says_what_a_reader_needs(page: Reader) -> None:
    for words in (
        "60.0 (1/2)",
        "1 job failed, 1 method skipped",
        "RuntimeError: <tensor> & co",
        "needs a CUDA device",
        "Masks & 100%_more",
        "3,600 saliency-labelled images",
        "ImageNet-1k",
        "480p",
        "frames kept",
        "vos-bench run --data toy-val --set 'name=with space'",
        "0123abcd" * 5 + ", with uncommitted changes",
        "torch 2.0",
        "Linux x86_64",
        "Mean over sequences",
        "The dataset is not on this machine",
    ):
        assert words in page.text, words


def test_published_figures_stand_by_themselves(make_run: Maker) -> None:
    run = make_run("one", [COPY], dataset="davis16-val")
    results = collect([run])
    reader = Reader(render(results, [])[0])
    about, _, rest = reader.text.partition("Published figures, not measured here")
    assert "MSRA10K images" in rest
    assert "SHLS 2023 MSRA10K images 73.5 76.6 70.4 published" in rest
    assert "73.5" not in about
    assert "70.4 published" in rest
    assert "73.5" not in table_csv(results)


def test_reasons_are_escaped(files: ReportFiles) -> None:
    assert "RuntimeError: &lt;tensor&gt; &amp; co" in files.page.read_text(encoding="utf-8")


def test_pictures_have_alternative_texts(page: Reader) -> None:
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert images
    assert all(image["alt"] and image["width"] and image["height"] for image in images)
    drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(drawings) == 7
    assert all(drawing["role"] == "img" for drawing in drawings)


def test_figures_are_whole(files: ReportFiles) -> None:
    names = {path.name for path in files.figures}
    kinds = ("per-sequence", "over-time", "against-fps", "against-hours", "against-images")
    kinds += ("differences", "ranks")
    suffixes = ("svg", "png", "pdf")
    assert names == {f"{kind}-toy-val.{suffix}" for kind in kinds for suffix in suffixes}
    for path in files.figures:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
        elif path.suffix == ".pdf":
            assert path.read_bytes()[:5] == b"%PDF-"
        else:
            with Image.open(path) as image:
                image.load()
                assert image.width == 1000
        assert path.stat().st_size < 300_000


def test_the_same_runs_give_the_same_bytes(make_run: Maker) -> None:
    results = collect([make_run("one", [COPY, MASKS])])
    first, second = draw_all(results), draw_all(results)
    assert [d.svg for d in first] == [d.svg for d in second]
    assert [d.png for d in first] == [d.png for d in second]
    assert [d.pdf for d in first] == [d.pdf for d in second]


def test_figures_leave_matplotlib_alone(make_run: Maker) -> None:
    import matplotlib
    import seaborn  # noqa: F401
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    draw_all(collect([make_run("one", [COPY])]))
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


def test_colours_are_those_of_the_page(make_run: Maker) -> None:
    """Every figure with a mark per method draws it in the colour of its card."""
    results = collect([make_run("one", [MASKS, COPY])])
    looks = styles(results)
    page, _ = make_page(results, [])
    assert {card.label: card.colour for card in page.cards} == {
        label: look.colour for label, look in looks.items()
    }
    for drawing in draw_all(results):
        label = COPY.title if drawing.name.startswith("differences") else MASKS.title
        assert looks[label].colour.lower() in drawing.svg.lower(), drawing.name


def test_what_columns_mean_needs_no_mouse(page: Reader) -> None:
    """Nothing is told by tooltips alone: those show neither on touch nor by keyboard."""
    assert not [tag for tag, attributes in page.tags if "title" in attributes]
    described = [
        a["aria-describedby"] for tag, a in page.tags if tag == "th" and a.get("aria-describedby")
    ]
    assert len(described) > 15
    assert len(set(described)) == len(described)
    for words in ("What the columns mean", "estimated hours of human annotation"):
        assert words in page.text
    assert "Why cells have no score Gpu, skipped (ant, bee): needs a CUDA device" in page.text
    assert "Half, failed (bee): RuntimeError: <tensor> & co" in page.text


def test_only_files_of_the_earlier_report_go(make_run: Maker, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build([make_run("one", [COPY, MASKS])], out, gap=None)
    assert (out / "figures/ranks-toy-val.svg").is_file()
    own = [out / "figures/ranks-mine.svg", out / "figures/notes.txt", out / "assets/clip-mine.js"]
    for path in own:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    second = build([make_run("two", [COPY], dataset="other-val")], out)
    left = {path for path in out.rglob("*") if path.is_file()}
    assert not [path for path in left if "toy-val" in path.name]
    assert left == {
        second.page, second.table, second.parquet, second.per_sequence, second.per_object,
        second.markdown, second.latex, second.differences, *second.figures, *own,
    }  # fmt: skip


def test_a_page_of_others_names_no_files(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text('<a href="figures/mine.svg">mine</a>')
    assert listed_files(tmp_path) == set()
    assert listed_files(tmp_path / "nothing") == set()


def test_score_over_time(make_run: Maker) -> None:
    falling = tuple(np.linspace(0.9, 0.2, 8))
    run = make_run("one", [FakeMethod("a", [FakeJob("ant", {1: (falling, falling, None)})])])
    results = collect([run])
    (dataset,) = results.datasets.values()
    means = time_table(results, dataset)
    assert means["J&F"].is_monotonic_decreasing
    assert means["J&F"].iloc[0] == pytest.approx(90)
    assert means["J&F"].iloc[-1] == pytest.approx(20)
    assert means["position"].between(0, 100).all()


def test_many_sequences_become_a_distribution(make_run: Maker) -> None:
    names = [f"s{number:03}" for number in range(50)]
    jobs = [FakeJob(name, {1: (0.5, 0.5, None)}) for name in names]
    run = make_run("one", [replace(COPY, jobs=jobs)], sequences=names, masks=False)
    results = collect([run])
    (dataset,) = results.datasets.values()
    drawing = per_sequence(results, dataset)
    assert drawing.text.startswith("Share of the 50 sequences")


def test_nothing_finished_still_gives_a_page(make_run: Maker, tmp_path: Path) -> None:
    jobs = [FakeJob("ant", status="failed", reason="boom"), FakeJob("bee", status="pending")]
    files = build([make_run("one", [replace(COPY, jobs=jobs)])], tmp_path / "out")
    text = Reader(files.page.read_text(encoding="utf-8")).text
    assert files.figures == ()
    assert "nothing has been scored" in text
    assert "no result: 1 failed, 1 not run" in text
    assert "boom" in text


def test_no_ground_truth_is_said(make_run: Maker) -> None:
    run = make_run("one", [replace(COPY, jobs=[FakeJob("ant"), FakeJob("bee")])])
    text = Reader(render(collect([run]), [])[0]).text
    assert "no public ground truth: 2 sequences segmented" in text


def test_overlays_on_frames(make_run: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("one", [COPY, FAILING])
    with_frames(run, monkeypatch)
    (gallery,), files = galleries(collect([run]))
    assert files == {}
    ant, bee = gallery.sequences
    columns = [tile.column for tile in ant.strips[0].tiles]
    assert columns == ["Ground truth", "Copy the first mask", "Half"]
    assert len(ant.strips) == 3
    assert all(tile.source for strip in ant.strips for tile in strip.tiles)
    assert [tile.reason for tile in bee.strips[0].tiles] == ["", "", "failed"]
    assert ant.strips[-1].frame == "00009"


def test_overlays_without_later_ground_truth(
    make_run: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("one", [replace(COPY, jobs=[FakeJob("ant")])], sequences=["ant"])
    with_frames(run, monkeypatch, (0,))
    (gallery,), _ = galleries(collect([run]))
    assert len(gallery.sequences[0].strips) == 3
    assert {strip.tiles[0].column for strip in gallery.sequences[0].strips} == {"Frame only"}


def test_pages_stay_small(make_run: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"s{number:03}" for number in range(12)]
    jobs = [FakeJob(name, {1: (0.5, 0.5, None)}) for name in names]
    run = make_run("one", [replace(COPY, jobs=jobs)], sequences=names)
    # Room for 5 frames, the fewest, of 8 sequences with a method and the ground truth.
    monkeypatch.setattr(galleries_module, "MOST_MASKS", 80)
    monkeypatch.setattr(galleries_module, "MOST_STILLS", 24)
    (gallery,), _ = galleries(collect([run]))
    assert len(gallery.sequences) == 8
    assert {len(clip.strips) for clip in gallery.sequences} == {1}
    assert "8 of 12 sequences are shown" in gallery.note


def test_images_decode(page: Reader) -> None:
    import base64

    source = next(a["src"] for tag, a in page.tags if tag == "img" and a.get("src"))
    data = base64.b64decode(source.partition(",")[2])
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (SIZE[1], SIZE[0])

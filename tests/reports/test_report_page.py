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

from bench.method import LabelRegime
from reports import ReportFiles, build
from reports import galleries as galleries_module
from reports.combine import collect
from reports.figures import draw_all, per_sequence, time_table
from reports.files import listed_files
from reports.galleries import galleries
from reports.heat import heat
from reports.lines import lines_of
from reports.looks import styles
from reports.page import make_page, render
from reports.regimes import KINDS
from reports.results import Results
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


def rows_of_a_suite(make_run: Maker, rows: dict[str, dict[str, str]]) -> Results:
    """Two methods as rows: one without training, one trained with labels."""
    nothing = replace(MASKS, name="nothing", variant="Random", row="Random", regime=LabelRegime())
    learned = replace(MASKS, variant="Learned", row="Learned", title="MASKS")
    return collect([make_run("one", [nothing, learned])], rows)


def test_cards_say_what_is_true_of_the_row(make_run: Maker) -> None:
    results = rows_of_a_suite(make_run, {})
    about = {card.label: card.description for card in make_page(results, [])[0].cards}
    assert about["Learned"] == "MASKS: What masks does."
    assert about["Random"] == KINDS["no training"]
    papers = {info.label: info.paper for info in results.methods.values()}
    assert papers == {"Learned": "Somebody: Masks. 2020", "Random": ""}


def test_cards_say_what_the_suite_says(make_run: Maker) -> None:
    rows = {"Learned": {"description": "Masks, of 30 videos."}, "Random": {"group": "Others"}}
    results = rows_of_a_suite(make_run, rows)
    page, _ = make_page(results, [])
    about = {card.label: card.description for card in page.cards}
    assert about == {"Learned": "Masks, of 30 videos.", "Random": KINDS["no training"]}
    text = render(results, [])[0]
    reader = Reader(text)
    headings = [a for tag, a in reader.tags if tag == "th" and a.get("scope") == "rowgroup"]
    tables = (*page.tables, *page.costs, *page.differences)
    spans = Counter(a["colspan"] for a in headings)
    assert spans >= Counter(str(len(table.heads)) for table in tables)
    assert text.count("<span>Others</span>") == len(headings)


def test_rows_cite_what_they_are(make_run: Maker) -> None:
    """A row that the suite describes may be no use of its method's paper, so the suite says it."""
    own, other = "Somebody: Masks. 2020", "Another: Heads. 2019"
    notes: list[tuple[dict[str, str], str]] = [
        ({}, own),
        ({"group": "Others"}, own),
        ({"description": "A control."}, ""),
        ({"description": "A control.", "paper": other}, other),
        ({"paper": other}, other),
    ]
    for place, (note, paper) in enumerate(notes):
        learned = replace(MASKS, variant="Learned", row="Learned")
        results = collect([make_run(str(place), [learned])], {"Learned": note, "Other": {}})
        (card,) = make_page(results, [])[0].cards
        assert dict(card.facts).get("Paper", "") == paper


def test_default_settings_keep_the_methods_own_description(make_run: Maker) -> None:
    (card,) = make_page(collect([make_run("one", [COPY])]), [])[0].cards
    assert card.description == "What copy does."


def test_the_lede_says_how_many_seeds_rows_have(make_run: Maker) -> None:
    three = [job for seed in (0, 1, 2) for job in two(0.3 + seed / 10, 0.7, seed=seed)]
    same = [job for seed in (0, 1, 2) for job in two(0.3, 0.7, seed=seed)]

    def lede(name: str, *jobs: list[FakeJob]) -> str:
        methods = [FakeMethod(f"m{place}", each) for place, each in enumerate(jobs)]
        return make_page(collect([make_run(name, methods, masks=False)]), [])[0].lede

    assert ", 1 to 3 seeds a row, " in lede("one", three, two(0.5, 0.5))
    assert ", 3 seeds, " in lede("two", three, three)
    assert ", 1 seed, " in lede("three", two(0.5, 0.5))
    assert ", 1 seed, " in lede("four", same), "not as if there had been three trainings"


def test_published_figures_stand_by_themselves(make_run: Maker) -> None:
    run = make_run("one", [COPY], dataset="davis16-val")
    results = collect([run])
    reader = Reader(render(results, [])[0])
    about, _, rest = reader.text.partition("Published figures, not measured here")
    assert "MSRA10K images" in rest
    source = "published, as printed in SHLS thesis summary (CBIC 2023) Table I"
    assert f"SHLS 2023 MSRA10K images 73.5 76.6 70.4 {source}" in rest
    assert "STT 2022 ImageNet images + YouTube-VOS (5.67 h of video) 74.1" in rest, "of DAVIS-2017"
    assert rest.count("published, as printed in") == 5 + 13
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
    keys = [drawing for drawing in drawings if drawing.get("class") == "key"]
    assert all(key["aria-hidden"] == "true" for key in keys)
    drawings = [drawing for drawing in drawings if drawing not in keys]
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
    assert {card.label: card.look for card in page.cards} == looks
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
    assert "Gpu, skipped (ant, bee): needs a CUDA device" in page.text
    first = "Why cells have no score Half, failed (bee): RuntimeError: <tensor> & co"
    assert first in page.text, "methods stand as in the table"


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


def test_the_heat_map_goes_from_hard_to_easy(make_run: Maker) -> None:
    """Methods stand as in the table, sequences by the mean of all methods."""
    results = collect([make_run("one", [COPY, MASKS])])
    (dataset,) = results.datasets.values()
    found = heat(results, dataset)
    labels = [line.info.label for line in lines_of(results, dataset)]
    assert [row.line.info.label for row in found.rows] == labels
    means = {"ant": (25 + 75) / 2, "bee": (50 + 25 + 75 + 37.5) / 4}
    assert list(found.sequences) == sorted(means, key=means.__getitem__)
    assert [row.over_sequences.text for row in found.rows] == ["65.6", "31.2"]
    assert [[cell.text for cell in row.cells] for row in found.rows] == [
        ["56.2", "75.0"] if found.sequences[0] == "bee" else ["75.0", "56.2"],
        ["37.5", "25.0"] if found.sequences[0] == "bee" else ["25.0", "37.5"],
    ]


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
    drawing = per_sequence(results, dataset, lines_of(results, dataset))
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

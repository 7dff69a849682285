"""The page of a measured gap: complete, offline, and saying what the tables say."""

from __future__ import annotations

import html
import io
import re

import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from bench.errors import StoreError
from bench.gap.command import measure_gap
from bench.gap.request import gap_request
from reports.gap import build, print_table, render
from reports.gap_figures import closed_figure, statistics_figure
from reports.gap_results import GapResults
from reports.gap_tables import STATISTICS, equalised_table

FIGURES = {
    "drop-own", "drop-probe", "gap-closed", "a-distance", "discrepancy", "statistics",
    "curves-own", "curves-probe", "distance-curves-bright-source", "cka-bright-source",
    "equalisation-bright-source", "embedding-bright-tsne",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(gap_folder):
    return gap_folder


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "index.html").read_text(encoding="utf-8")


def test_every_figure_is_there_in_all_formats(folder):
    names = {path.stem for path in (folder / "figures").iterdir()}
    assert names >= FIGURES
    for name in names:
        with Image.open(folder / "figures" / f"{name}.png") as picture:
            # A figure without marks would be paper alone.
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 10
        assert (folder / "figures" / f"{name}.svg").read_text().rstrip().endswith("</svg>")
        assert (folder / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_the_page_reads_offline(page):
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert links
    assert not [link for link in links if re.match(r"(https?:)?//", link)]
    assert "@import" not in page
    assert "<link" not in page


def test_every_link_leads_somewhere(folder, page):
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    for link in re.findall(r'<a [^>]*href="([^"]*)"', page):
        assert link[1:] in ids if link.startswith("#") else (folder / link).is_file()


def test_figures_follow_the_pages_colours(page):
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) >= len(FIGURES)
    for drawing in drawings:
        assert "#22262b" not in drawing
        assert "currentColor" in drawing
    assert "prefers-color-scheme: dark" in page


def test_numbers_on_the_page_are_the_tables(folder, page):
    drop = pd.read_csv(folder / "drop.csv")
    row = drop.query("weights == 'source' and head == 'own foreground'").iloc[0]
    texts = [f"{100 * row[name]:.1f}" for name in ("J_images", "J_videos", "drop")]
    sentence = f"{texts[0]} on images, {texts[1]} on video, a drop of {texts[2]} points"
    assert sentence in re.sub(r"\s+", " ", page)
    closed = pd.read_csv(folder / "gap_closed.csv").iloc[0]
    assert f"adapted closes {100 * closed['value']:.1f} %" in page


def test_answers_come_first(folder, page):
    drop = pd.read_csv(folder / "drop.csv").query("weights == 'source'").iloc[0]
    answer = f"bright source loses {100 * drop['drop']:.1f} points from images to video."
    assert page.index(answer) < page.index("<table") < page.index("<figure")
    ratio = pd.read_csv(folder / "distances.csv").query("method == 'reference encoder'")
    value = ratio["value"].iloc[-1]
    assert f"reference encoder (prompted-only) the sets lie {value:,.0f} times as far" in page


def test_factors_made_equal_are_described(folder, page):
    """Every statistic of every factor is a row, with the numbers of the table."""
    table = pd.read_csv(folder / "equalised_statistics.csv")
    rows = equalised_table(GapResults(folder)).rows
    assert len(rows) == len(
        table.groupby(["method", "weights", "factor", "statistic"], dropna=False)
    )
    by_name = {(row.cells[0].text, row.cells[1].text): row.cells for row in rows}
    for factor, statistic, title, domain in (
        ("framing", "kl_divergence", "KL(images || video), nats", "images || videos"),
        ("label accuracy", "boundary_f", "boundary F of masks", "images"),
        ("sharpness", "gradient_energy_median", STATISTICS["gradient_energy_median"], "images"),
    ):
        found = table.query(
            f"factor == '{factor}' and statistic == '{statistic}' and domain == '{domain}'"
        ).set_index("stage")["value"]
        cells = by_name[factor, title]
        assert [cell.value for cell in cells[3:5]] == pytest.approx(
            [found["before"], found["after"]]
        )
    assert "What making factors equal changes" in page


def test_what_was_not_measured_is_said(folder, page):
    missing = pd.read_csv(folder / "missing.csv")
    assert len(missing)
    for reason in missing["reason"]:
        assert html.escape(reason) in page


def test_equal_tables_give_equal_figures(folder):
    first, again = (statistics_figure(GapResults(folder)) for _ in range(2))
    assert first == again


def test_without_curves_and_ends_the_page_is_complete(tmp_path):
    options = {
        "methods": ["prompted-only"], "images": "small-pictures", "videos": "small-clips",
        "short_side": 48, "limit": 8, "factors": [], "reference": "none",
    }  # fmt: skip
    measure_gap(gap_request(options), tmp_path)
    results = GapResults(tmp_path)
    assert closed_figure(results) is None
    text = render(results, [])
    assert "a linear probe of its features stands in" in text
    assert "few: read the intervals" in text


def test_the_terminal_table_has_a_line_per_network(folder):
    buffer = io.StringIO()
    print_table(folder, Console(file=buffer, width=200))
    for label in ("bright source", "bright oracle", "bright adapted"):
        assert label in buffer.getvalue()


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(StoreError, match=r"gap\.json"):
        build(tmp_path)

"""Known numbers in, known tables out."""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from fake_runs import COPY, MASKS, FakeJob, FakeMethod, Maker, two
from rich.console import Console

from bench.method import LabelRegime, ProtocolRecord
from reports import build, print_table
from reports.combine import collect
from reports.lines import lines_of
from reports.page_tables import cost_table
from reports.results import sequence_table
from reports.tables import (
    latex_escape,
    per_object_csv,
    per_sequence_csv,
    table_csv,
    table_latex,
    table_markdown,
    table_parquet,
)


def read(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=[""])


def printed(*runs, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_table(list(runs), console)
    return console.file.getvalue()


def test_jobs_on_a_cpu_are_compared_by_the_processors_time(make_run: Maker) -> None:
    jobs = [replace(job, seconds=16.0, cpu_seconds=2.0) for job in MASKS.jobs]
    beside_others = replace(MASKS, jobs=jobs)
    results = collect([make_run("one", [COPY, beside_others])])
    table = read(table_csv(results)).set_index("method")
    assert table.loc["masks", "fps"] == pytest.approx(8 / 2)
    assert table.loc["copy", "fps"] == pytest.approx(16 / 8)  # of before there was another time
    by_sequence = sequence_table(results).set_index("method")
    assert by_sequence.loc["masks", "fps"].tolist() == pytest.approx([4.0] * len(jobs))


def test_table_csv_is_exact(make_run: Maker) -> None:
    results = collect([make_run("one", [COPY, MASKS])])
    table = read(table_csv(results)).set_index("method")

    copy = table.loc["copy"]
    # Three objects: J 25, 50, 50; F 25, 25, 25. A mean over sequences would give another J.
    assert copy["J"] == pytest.approx(125 / 3, abs=1e-12)
    assert copy["F"] == pytest.approx(25, abs=1e-12)
    assert copy["J&F"] == pytest.approx((125 / 3 + 25) / 2, abs=1e-12)
    assert (copy["J_recall"], copy["J_decay"], copy["F_recall"], copy["F_decay"]) == (0, 0, 0, 0)
    assert (copy["sequences"], copy["objects"]) == (2, 3)
    assert copy["fps"] == pytest.approx(16 / 8)
    assert copy["peak_memory_mb"] == 303
    assert copy["parameters"] == 1_500_000
    assert (copy["annotated_masks"], copy["annotation_hours"]) == (0, 0)

    masks = table.loc["masks"]
    assert masks["J_recall"] == 100
    assert masks["annotated_masks"] == 3700
    assert masks["annotation_hours"] == pytest.approx(MASKS.regime.annotation_hours)
    assert (masks["resolution"], masks["stride"], masks["top_k"]) == ("480p", 8, 5)
    assert pd.isna(masks["radius"])
    assert ",480p,8,,5," in table_csv(results), "counts are written as whole numbers"


def test_table_csv_starts_with_the_promised_columns(make_run: Maker) -> None:
    header = table_csv(collect([make_run("one", [COPY])])).splitlines()[0].split(",")
    assert {"method", "variant", "dataset", "split", "seed"} <= set(header[:6])
    scores = ["J", "F", "J&F", "J_recall", "J_decay", "F_recall", "F_decay"]
    start = header.index("J")
    assert header[start : start + 7] == scores
    assert {"resolution", "stride", "memory", "top_k", "radius", "temperature"} <= set(header)
    assert {"label_resize", "G", "failed", "skipped"} <= set(header)


def test_decay_is_first_quarter_minus_last(make_run: Maker) -> None:
    falling = (0.9, 0.9, 0.9, 0.5, 0.5, 0.3, 0.3, 0.3)
    run = make_run("one", [FakeMethod("a", [FakeJob("ant", {1: (falling, 0.5, None)})])])
    row = collect([run]).table.iloc[0]
    assert row["J_decay"] == pytest.approx(60)
    assert row["F_decay"] == 0
    assert row["J_recall"] == pytest.approx(100 * 3 / 8)


def test_objects_and_sequences(make_run: Maker) -> None:
    results = collect([make_run("one", [COPY])])
    objects = read(per_object_csv(results))
    assert len(objects) == 3
    assert objects.loc[objects["sequence"] == "bee", "J"].tolist() == [50, 50]
    sequences = read(per_sequence_csv(results)).set_index("sequence")
    assert sequences.loc["bee", "J&F"] == 37.5
    assert sequences.loc["bee", "objects"] == 2
    assert sequences.loc["ant", "status"] == "done"


def test_partial_rows_are_marked_and_never_best(make_run: Maker) -> None:
    jobs = [two(0.99, 0.99)[0], FakeJob("bee", status="failed", reason="out of memory")]
    run = make_run("one", [COPY, MASKS, FakeMethod("half", jobs)])
    results = collect([run])
    (dataset,) = results.datasets.values()
    half = next(line for line in lines_of(results, dataset) if line.info.method == "half")
    assert half.score() == "99.0 (1/2)"
    assert not half.numbers["J&F"].best
    assert "99.0 (1/2)" in table_markdown(results)
    assert r"99.0 {\small (1/2)}" in table_latex(results)
    text = printed(run)
    assert "99.0 (1/2)" in text
    assert "1 job failed: Half on Toy, val (bee): out of memory" in text


def test_partial_also_where_a_run_planned_fewer_sequences(make_run: Maker) -> None:
    short = make_run("short", [replace(MASKS, jobs=MASKS.jobs[:1])], sequences=["ant"])
    results = collect([make_run("full", [COPY]), short])
    (dataset,) = results.datasets.values()
    marks = {line.info.method: line.mark for line in lines_of(results, dataset)}
    assert marks == {"copy": "", "masks": "(1/2)"}


def test_skipped_methods_have_a_row_with_the_reason(make_run: Maker) -> None:
    run = make_run("one", [COPY, FakeMethod("gpu", skip="needs a CUDA device")])
    results = collect([run])
    assert "| skipped: needs a CUDA device |" in table_markdown(results)
    row = read(table_csv(results)).set_index("method").loc["gpu"]
    assert row["skipped"] == 1
    assert pd.isna(row["J&F"])
    assert pd.isna(row["annotated_masks"]), "its regime is not known, so it must not read as 0"
    assert "needs a CUDA device" in printed(run)


def test_without_ground_truth(make_run: Maker) -> None:
    run = make_run("one", [replace(COPY, jobs=[FakeJob("ant"), FakeJob("bee")])])
    results = collect([run])
    words = "no public ground truth: 2 sequences segmented"
    assert words in table_markdown(results)
    assert words in table_latex(results)
    assert words in printed(run)


def test_seeds_are_averaged_in_shown_tables_only(make_run: Maker) -> None:
    jobs = [*two(0.5, 0.5), *two(0.7, 0.7, seed=1)]
    results = collect([make_run("one", [FakeMethod("a", jobs)])])
    table = read(table_csv(results))
    assert table["seed"].tolist() == [0, 1]
    # J is 50 and 70: mean 60, sample standard deviation 14.1.
    assert "60.0 ± 14.1" in table_markdown(results)
    assert r"60.0 $\pm$ 14.1" in table_latex(results)


def test_how_many_seeds_figures_are_over(make_run: Maker) -> None:
    three = [*two(0.5, 0.5), *two(0.7, 0.7, seed=1), *two(0.6, 0.6, seed=2)]
    both = [*two(0.2, 0.2), *two(0.3, 0.3, seed=1)]
    one = make_run("one", [FakeMethod("a", three), FakeMethod("b", two(0.1, 0.1))])
    assert "±: standard deviation over 3 seeds." in table_markdown(collect([one]))
    another = make_run("two", [FakeMethod("c", both)])
    text = table_markdown(collect([one, another]))
    assert "±: standard deviation over seeds, 2 of C; 3 of A." in text


def test_seeds_that_gave_the_same_scores_count_once(make_run: Maker) -> None:
    same = [job for seed in (0, 1, 2) for job in two(0.3, 0.7, seed=seed)]
    run = make_run("one", [FakeMethod("a", same), COPY])
    results = collect([run])
    (dataset,) = results.datasets.values()
    assert {line.info.label: line.seeds_counted for line in lines_of(results, dataset)} == {
        "A": 1,
        COPY.title: 1,
    }
    for text in (table_markdown(results), table_latex(results), printed(run)):
        assert "±" not in text.replace(r"$\pm$", "±")
        assert "All seeds gave the same scores, which count once: A." in text
    # One score that is the same by chance does not make all seeds the same.
    close = [*two(0.9, 0.9), *two(0.8, 0.8, seed=1)]
    text = table_markdown(collect([make_run("two", [FakeMethod("b", close)])]))
    assert "100.0 ± 0.0" in text, "recall is 100 for both"


def test_groups_have_headings_in_every_table(make_run: Maker) -> None:
    rows = {"Low": {"group": ""}, "High": {"group": "Own_encoders | more"}}
    fakes = [replace(COPY, variant=name, row=name) for name in ("Low", "High")]
    run = make_run("one", fakes)
    results = collect([run], rows)
    in_csv = read(table_csv(results)).set_index("variant")["group"].fillna("")
    assert in_csv.to_dict() == {"Low": "", "High": "Own_encoders | more"}
    table = [line for line in table_markdown(results).splitlines() if line.startswith("|")]
    starts = [line.replace(r"\|", "/").split(" |")[0] for line in table[2:]]
    assert starts == ["| Low", "| *Own_encoders / more*", "| High"]
    cells = {line.replace(r"\|", "").count("|") for line in table}
    assert len(cells) == 1, "every row has as many cells"
    latex = table_latex(results).splitlines()
    heading = latex.index(
        r"\midrule \multicolumn{11}{l}{\textit{Own\_encoders \textbar{} more}} \\"
    )
    assert latex[heading - 1].startswith("Low &")
    assert latex[heading + 1].startswith("High &")
    console = Console(file=io.StringIO(), width=120)
    print_table([run], console, rows)
    words = [line.split("  ")[0].strip() for line in console.file.getvalue().splitlines()]
    order = [words.index(word) for word in ("Low", "Own_encoders | more", "High")]
    assert order == sorted(order)


def test_seen_and_unseen(make_run: Maker) -> None:
    jobs = [FakeJob("ant", {1: (0.8, 0.6, True), 2: (0.4, 0.2, False), 3: (0.6, 0.2, False)})]
    run = make_run("one", [FakeMethod("a", jobs)], sequences=["ant"])
    row = read(table_csv(collect([run]))).iloc[0]
    assert row["J_seen"] == pytest.approx(80)
    assert row["J_unseen"] == pytest.approx(50)
    assert row["F_seen"] == pytest.approx(60)
    assert row["F_unseen"] == pytest.approx(20)
    assert row["G"] == pytest.approx(52.5)
    assert " G " in printed(run)


def test_newest_run_wins_and_a_note_says_so(make_run: Maker) -> None:
    old = make_run("old", [COPY])
    new = make_run("new", [replace(COPY, jobs=two(0.5, 1.0)[:1])], started="2026-02-01")
    results = collect([new, old])
    assert results.objects.set_index(["sequence", "object"])["J"].to_dict() == {
        ("ant", 1): 50,
        ("bee", 1): 50,
        ("bee", 2): 50,
    }
    assert len(results.cost) == 2
    assert results.notes == ("1 job of old also in new: the newer result, from new, is shown.",)
    assert results.notes[0] in printed(old, new)


def test_a_failed_rerun_hides_no_result(make_run: Maker) -> None:
    failed = [FakeJob("ant", status="failed", reason="no"), FakeJob("bee", status="pending")]
    old = make_run("old", [COPY])
    new = make_run("new", [replace(COPY, jobs=failed)], started="2026-02-01")
    results = collect([old, new])
    assert len(results.objects) == 3
    assert not len(results.unfinished)
    assert "the finished result, from old, is shown" in results.notes[0]


def test_other_settings_in_another_run_are_noted(make_run: Maker) -> None:
    other = replace(MASKS, jobs=MASKS.jobs[:1], protocol=ProtocolRecord(resolution="240p"))
    results = collect([make_run("a", [MASKS]), make_run("b", [other], started="2026-02-01")])
    assert any("used other settings" in note for note in results.notes)
    assert any("sequences differ in" in note and "resolution" in note for note in results.notes)
    assert pd.isna(results.table.iloc[0]["resolution"]), "two values are not one"


def test_protocols_are_never_mixed(make_run: Maker) -> None:
    runs = [make_run("a", [COPY]), make_run("b", [COPY], protocol="unsupervised")]
    results = collect(runs)
    assert [d.label for d in results.datasets.values()] == ["Toy, val", "Toy, val, unsupervised"]
    assert len(results.table) == 2
    assert not results.notes


def test_a_skip_gives_way_to_another_run(make_run: Maker) -> None:
    skipped = make_run("a", [FakeMethod("copy", skip="no weights", title=COPY.title)])
    results = collect([skipped, make_run("b", [COPY])])
    assert not len(results.unfinished)
    assert len(results.table) == 1


def test_a_run_that_has_not_ended(make_run: Maker) -> None:
    run = make_run("one", [COPY], tables=False)
    results = collect([run])
    assert set(results.jobs["status"]) == {"pending"}
    assert "has not ended" in results.notes[0]
    assert "2 jobs pending" in printed(run)
    assert "no public ground truth" not in printed(run)


def test_variants_and_equal_titles_are_told_apart(make_run: Maker) -> None:
    methods = [COPY, replace(COPY, variant="stride=4"), replace(COPY, name="copy2")]
    results = collect([make_run("one", methods)])
    labels = [info.label for info in results.methods.values()]
    assert labels == [
        "Copy the first mask (copy)",
        "Copy the first mask (copy) [stride=4]",
        "Copy the first mask (copy2)",
    ]


def test_latex_is_escaped(make_run: Maker) -> None:
    assert latex_escape(r"a_b & 5% \ {x} #1 ~ ^ $ ±") == (
        r"a\_b \& 5\% \textbackslash{} \{x\} \#1 \textasciitilde{} \textasciicircum{} \$ $\pm$"
    )
    assert latex_escape("--weights a-b") == "-{}-weights a-b"
    assert latex_escape("naïve “α”") == "naïve “U+03B1”"
    text = table_latex(collect([make_run("one", [MASKS])]))
    assert r"Masks \& 100\%\_more" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    plain = [row.replace(r"\&", "") for row in rows if "multicolumn" not in row]
    assert {row.count("&") for row in plain} == {10}, "every row fills the 11 columns"


def test_markdown_rows_have_as_many_cells_as_the_head(make_run: Maker) -> None:
    pipes = replace(COPY, title="a|b")
    text = table_markdown(collect([make_run("one", [pipes, FakeMethod("gpu", skip="no")])]))
    rows = [line.replace(r"\|", "") for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1


def test_parquet_holds_the_rows_of_the_csv(make_run: Maker) -> None:
    # A radius that is a number in one row and a word in the other.
    numbers = replace(COPY, protocol=ProtocolRecord(radius=12.0))
    words = replace(MASKS, protocol=ProtocolRecord(radius="map", top_k=5))
    results = collect([make_run("one", [numbers, words])])
    found = pd.read_parquet(io.BytesIO(table_parquet(results)))
    rows = read(table_csv(results))
    assert list(found.columns) == list(rows.columns)
    assert found["J&F"].tolist() == rows["J&F"].tolist()
    assert found["radius"].tolist() == rows["radius"].tolist() == ["12.0", "map"]
    assert found["top_k"].fillna(0).tolist() == [0, 5]


def test_several_origins_have_a_column(make_run: Maker) -> None:
    theirs = replace(MASKS, weights="/w/released.pth")
    skipped = FakeMethod("gpu", skip="needs a CUDA device")
    results = collect([make_run("one", [COPY, theirs, skipped])])
    head, _, *rows = [line for line in table_markdown(results).splitlines() if line[:1] == "|"]
    assert head.endswith("| Source |")
    ends = [row.split("|")[-2].strip() for row in rows]
    assert ends == ["measured with authors' weights", "measured here", "–"]
    latex = table_latex(results).splitlines()
    full = [line for line in latex if line.endswith(r"\\") and "multicolumn" not in line]
    assert {line.replace(r"\&", "").count("&") for line in full} == {11}
    assert full[-1].endswith(r"& measured here \\")
    (columns,) = [line for line in latex if line.startswith(r"\begin{tabular}")]
    assert columns.endswith("rl}")
    (dataset,) = results.datasets.values()
    costs = cost_table(results, dataset)
    assert costs.heads[-1].text == "Source"
    assert [row.cells[-1].text for row in costs.rows] == ends


def test_one_origin_is_a_sentence(make_run: Maker) -> None:
    results = collect([make_run("one", [COPY, replace(COPY, name="b", title="B")])])
    assert "Source of all rows: measured here." in table_markdown(results)
    assert "Source |" not in table_markdown(results)
    (dataset,) = results.datasets.values()
    assert cost_table(results, dataset).remarks == ["Source of all rows: measured here."]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="No pdflatex: TeX is not installed.")
def test_latex_compiles(make_run: Maker, tmp_path: Path) -> None:
    jobs = [FakeJob("ant", {1: (0.8, 0.6, True), 2: (0.4, 0.2, False)})]
    theirs = replace(MASKS, weights="/w/released.pth")
    runs = [
        make_run("one", [COPY, theirs, FakeMethod("gpu", skip="needs --device cuda")]),
        make_run("seen", [FakeMethod("a", jobs)], dataset="other-val", sequences=["ant"]),
    ]
    (tmp_path / "table.tex").write_text(table_latex(collect(runs)))
    (tmp_path / "all.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{table}\end{document}"
    )
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


def test_no_runs() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        collect([])


def test_terminal_table_names_labels_and_cost(make_run: Maker) -> None:
    regime = LabelRegime(images=1000, image_labels="class")
    text = printed(make_run("one", [COPY, replace(MASKS, regime=regime)]))
    for words in ("no training", "1,000 class-labelled images", "75.0", "0.5", "303", "s/frame"):
        assert words in text


def test_build_lists_what_it_wrote(make_run: Maker, tmp_path) -> None:
    files = build([make_run("one", [COPY])], tmp_path / "out")
    written = {path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    listed = {
        files.page,
        files.table,
        files.parquet,
        files.per_sequence,
        files.per_object,
        files.differences,
    }
    assert written == listed | {files.markdown, files.latex, *files.figures}

"""Where runs came from is said once per distinct block."""

from __future__ import annotations

from dataclasses import replace

from fake_runs import COPY, MASKS, Maker

from reports.combine import collect
from reports.page import render
from reports.provenance import provenance
from reports.published import published_tables


def test_what_runs_share_is_said_once(make_run: Maker) -> None:
    same = [make_run(name, [replace(COPY, variant=name)]) for name in ("one", "two")]
    other = make_run("three", [MASKS], dataset="other-val")
    found = provenance([*same, other])
    assert [block.runs for block in found.facts] == [["one", "two"], ["three"]]
    assert [block.runs for block in found.commands] == [["one", "two"], ["three"]]
    assert [block.runs for block in found.configs] == [["one", "two"], ["three"]]
    assert [times.run for times in found.times] == ["one", "two", "three"]
    names = [name for name, _ in found.facts[0].facts]
    assert names[:4] == ["Commit", "Host", "Versions", "Data: toy-val"]
    text, _ = render(collect([*same, other]), [])
    assert text.count("vos-bench run --data toy-val") == 1
    assert text.count("torch 2.0") == 2
    assert "one; two" in text


def test_runs_of_one_name_are_both_listed(make_run: Maker) -> None:
    """Two folders can end in the same name."""
    found = provenance([make_run("a/run", [COPY]), make_run("b/run", [COPY])])
    assert [times.run for times in found.times] == ["run", "run"]


def test_all_published_systems_are_shown() -> None:
    """13 systems are known on DAVIS-2017 and 5 of them on DAVIS-2016."""
    tables = published_tables([("davis16", "val", "semi-supervised")])
    assert [(table.title, len(table.rows)) for table in tables] == [
        ("DAVIS-2016, val", 5),
        ("DAVIS-2017, val", 13),
    ]
    assert published_tables([("davis17-val", "val", "semi-supervised")]) == tables
    assert published_tables([("toy", "val", "semi-supervised")]) == []
    assert published_tables([("davis16", "val", "unsupervised")]) == []

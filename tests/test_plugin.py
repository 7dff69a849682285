"""The example plugin is installed as a user would install it and run by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PLUGIN = REPO / "examples" / "plugin"


def bench(site: Path, *arguments: str):
    path = os.pathsep.join([str(site), str(REPO)])
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        capture_output=True,
        text=True,
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200", "NO_COLOR": "1"},
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with the plugin installed, beside the environment rather than in it."""
    folder = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "plugin"
    subprocess.run(["cp", "-r", str(PLUGIN), str(source)], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--target", str(folder), str(source)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_the_example_is_short():
    lines = (PLUGIN / "src/bench_brightness/__init__.py").read_text().splitlines()
    assert len(lines) < 40


def test_listed_and_run_by_name(site, tmp_path):
    listed = bench(site, "list", "methods")
    assert "brightness" in listed.stdout
    assert "bench-brightness" in listed.stdout
    done = bench(
        site, "run", "--methods", "brightness,copy", "--out", str(tmp_path / "run"),
        "--set", "synthetic.frames=4", "--set", "synthetic.sequences=2", "--set", "reach=9",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "reach=9" in done.stdout


def test_it_keeps_the_contract(site):
    done = bench(site, "check", "brightness")
    assert done.returncode == 0, done.stdout


def broken_plugin(folder: Path, source: str) -> Path:
    """Metadata of a plugin as pip would write it, with this source."""
    (folder / "broken_plugin.py").write_text(source)
    information = folder / "broken_plugin-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n"
    )
    (information / "entry_points.txt").write_text(
        "[bench.methods]\nbroken = broken_plugin:Broken\n"
    )
    return folder


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import a_package_that_is_missing\n", "ModuleNotFoundError: No module named"),
        ("Broken = 3\n", "a subclass of bench.method.Method"),
        ("raise SystemError('boom')\n", "SystemError: boom"),
        ("", "AttributeError"),
    ],
)
def test_a_broken_plugin_is_reported_and_the_rest_go_on(tmp_path, source, reason):
    site = broken_plugin(tmp_path, source)
    listed = bench(site, "list", "methods")
    assert listed.returncode == 0
    assert "imagenet" in listed.stdout
    assert "broken" in listed.stderr
    assert reason in listed.stderr
    asked = bench(site, "run", "--methods", "broken")
    assert asked.returncode == 2
    assert reason in asked.stderr

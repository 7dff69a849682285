"""The page in a real browser, opened from the disk, in light and dark and on a phone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_runs import COPY, MASKS, FakeJob, FakeMethod, with_frames, write_run

from bench.masks import read_mask, write_mask
from bench.method import LabelRegime
from bench.store import Run
from reports import build, gap_part
from reports import galleries as galleries_module
from reports.combine import collect
from reports.drawing import Drawing
from reports.files import write_text
from reports.page import render

WIDE, PHONE = (1280, 900), (390, 800)


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """Headless Chromium; Debian's packages are chromium and chromium-driver."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed.")
    from selenium.webdriver.chrome.service import Service

    browser = shutil.which("chromium") or shutil.which("google-chrome")
    program = shutil.which("chromedriver")
    if not browser or not program:
        pytest.skip("No browser: install Debian's chromium and chromium-driver to test the page.")
    options = selenium.ChromeOptions()
    options.binary_location = browser
    # The sandbox needs rights that containers do not give.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = selenium.Chrome(options=options, service=Service(program))
    yield made
    made.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of three methods on two sequences, with frames; all clips are in the page."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("page")
        return build([fake_run(folder / "run", patch)], folder / "report").page


def fake_run(folder: Path, patch: pytest.MonkeyPatch) -> Run:
    ramp = (0.9, 0.8, 0.7, 0.6, 0.5, 0.05, 0.0, 0.0)
    half = tuple(value / 2 for value in ramp)
    jobs = [FakeJob(n, {1: (ramp, half, None)}) for n in ("ant", "bee")]
    falling = FakeMethod("falling", jobs, regime=LabelRegime(video_hours=1))
    run = write_run(folder, [COPY, MASKS, falling])
    with_frames(run, patch)
    for path in run.masks("falling", "", "toy-val", "ant", 0).glob("*.png"):
        # Unlike the masks of the other methods, which are equal.
        write_mask(path, np.roll(read_mask(path), 12, axis=0))
    return run


def opened(driver: Any, page: Path, size: tuple[int, int] = WIDE, scheme: str = "light") -> Any:
    driver.get_log("browser")
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    driver.get(page.as_uri())
    waited(lambda: driver.execute_script("return document.querySelector('.player canvas')"))
    return driver


def waited(check: Callable[[], Any], seconds: float = 20) -> Any:
    """What a check returns once it is true; drawing waits for pictures to be decoded."""
    end = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < end, "the page did not get there"
        time.sleep(0.05)


def pixels(driver: Any, panel: int = 0) -> str:
    """A panel's picture as text; empty while nothing is drawn."""
    script = "return document.querySelectorAll('details[open] .player canvas')[arguments[0]]"
    return str(driver.execute_script(f"{script}.toDataURL()", panel))


def changed(driver: Any, before: str, panel: int = 0) -> str:
    waited(lambda: pixels(driver, panel) != before)
    return pixels(driver, panel)


def control(driver: Any, label: str, scope: str = "details[open] .player") -> Any:
    """The control with this label."""
    return driver.execute_script(
        "return [...document.querySelectorAll(arguments[1] + ' label')]"
        ".find((each) => each.firstChild.textContent === arguments[0])"
        ".querySelector('input, select')",
        label,
        scope,
    )


def choose(driver: Any, label: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(control(driver, label)).select_by_visible_text(value)


def quiet(driver: Any) -> bool:
    """Whether the console holds no warning and no error."""
    return [entry for entry in driver.get_log("browser") if entry["level"] != "INFO"] == []


def first_column(driver: Any, section: str) -> list[str]:
    """Method names of the visible rows of a section's first table."""
    script = (
        "return [...document.querySelector(arguments[0] + ' table').tBodies[0].rows]"
        ".filter((row) => !row.hidden).map((row) => row.cells[0].textContent.trim())"
    )
    return list(driver.execute_script(script, section))


def test_sorting(driver: Any, page: Path) -> None:
    opened(driver, page)
    head = driver.find_element("css selector", "#results thead th:nth-child(2) button")
    assert head.text == "J&F"
    head.click()
    order = ["Masks & 100%_more", "Copy the first mask", "Falling"]
    assert first_column(driver, "#results") == order
    head.send_keys("\n")
    assert first_column(driver, "#results") == order[::-1]
    assert quiet(driver)


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a suite of four rows, two of them in a group."""
    folder = tmp_path_factory.mktemp("grouped")
    names = {"Low": 0.2, "High": 0.8, "Other low": 0.3, "Other high": 0.9}
    methods = [
        replace(COPY, variant=name, row=name, jobs=[FakeJob("ant", {1: (j, j, None)})])
        for name, j in names.items()
    ]
    rows = {name: {"group": "Others" if "Other" in name else ""} for name in names}
    with pytest.MonkeyPatch.context() as patch:
        run = write_run(folder / "run", methods, sequences=["ant"])
        with_frames(run, patch)
        return build([run], folder / "report", rows=rows).page


def shown(driver: Any) -> list[str]:
    """First cells of all visible rows of the results, headings of groups among them."""
    script = (
        "return [...document.querySelectorAll('#results tbody tr')]"
        ".filter((row) => row.checkVisibility()).map((row) => row.cells[0].textContent.trim())"
    )
    return list(driver.execute_script(script))


def test_rows_stay_in_their_groups(driver: Any, grouped: Path) -> None:
    opened(driver, grouped)
    assert shown(driver) == ["High", "Low", "Others", "Other high", "Other low"]
    head = driver.find_element("css selector", "#results thead th:nth-child(2) button")
    head.click()
    head.click()
    assert shown(driver) == ["Low", "High", "Others", "Other low", "Other high"]
    words = control(driver, "Filter rows", "#results")
    words.send_keys("other low")
    assert shown(driver) == ["Others", "Other low"]
    words.clear()
    words.send_keys("copy")
    assert shown(driver) == [], "a heading without rows is hidden, too"
    assert quiet(driver)


def test_filtering(driver: Any, page: Path) -> None:
    opened(driver, page)
    words = control(driver, "Filter rows", "#results")
    words.send_keys("copy training")
    assert first_column(driver, "#results") == ["Copy the first mask"]
    words.clear()
    words.send_keys(" ")
    regime = control(driver, "Label regime", "#results")
    regime.send_keys("video masks")
    assert first_column(driver, "#results") == ["Masks & 100%_more"]
    counted = driver.find_element("css selector", "#results .filter output").text
    assert counted == "1 of 3 rows"
    assert first_column(driver, "#costs") != first_column(driver, "#results")
    assert quiet(driver)


def test_filters_have_names_of_their_own(driver: Any, page: Path) -> None:
    """Who jumps from landmark to landmark hears which table a filter is for."""
    opened(driver, page)
    bars = driver.find_elements("css selector", "[role=search]")
    names = [bar.get_attribute("aria-label") for bar in bars]
    assert names[0] == "Filter Results, Toy, val"
    assert len(set(names)) == len(names) > 2


def test_markers_stand_beside_names(driver: Any, page: Path) -> None:
    """The marker of a method is the same in tables, cards, the player and its curve."""
    opened(driver, page)
    script = (
        "const find = (where, text) => [...document.querySelectorAll(where)]"
        ".find((each) => each.textContent.includes(text))?.querySelector('.key path');"
        "return ['#results tbody th', '#sequences tbody th', '.card h3', '.entry']"
        ".map((where) => find(where, 'Masks & 100%_more'))"
        ".map((path) => [path.getAttribute('d'), path.getAttribute('fill')])"
    )
    found = driver.execute_script(script)
    assert all(each == found[0] for each in found)
    control(driver, "Frame").send_keys("\ue014")
    markers = waited(lambda: driver.find_elements("css selector", ".curve .marker"))
    assert len(markers) == 2
    assert found[0] in [[m.get_attribute("d"), m.get_attribute("fill")] for m in markers]
    assert quiet(driver)


def test_costs_of_labels(driver: Any, page: Path) -> None:
    opened(driver, page)
    cells = driver.find_elements("css selector", "#results td[data-label-counts]")
    # 3,600 outlines of 54 s and 100 masks of 79 s.
    assert [cell.text for cell in cells] == ["56.2 h", "0", "0"]
    outline = driver.find_element("css selector", "input[data-label-kind=saliency]")
    outline.clear()
    outline.send_keys("108")
    assert [cell.text for cell in cells] == ["110 h", "0", "0"]
    assert quiet(driver)


def test_slider_by_keyboard(driver: Any, page: Path) -> None:
    opened(driver, page)
    before = waited(lambda: pixels(driver))
    slider = control(driver, "Frame")
    slider.send_keys("\ue014")  # right arrow
    assert slider.get_attribute("value") == "1"
    after = changed(driver, before)
    spoken = slider.get_attribute("aria-valuetext")
    assert spoken == "00001 (2 of 10 shown)"
    line = "return document.querySelector('.curve .now').getAttribute('x1')"
    place = driver.execute_script(line)
    slider.send_keys("\ue010")  # end
    changed(driver, after)
    assert float(driver.execute_script(line)) > float(place), "the curve keeps step"
    # From a button, arrow keys move on as well.
    play = driver.find_element("css selector", "details[open] .player button")
    play.send_keys("\ue012")  # left arrow
    assert slider.get_attribute("value") == "8"
    focused = "return getComputedStyle(document.activeElement).outlineStyle"
    assert driver.execute_script(focused) != "none"
    assert quiet(driver)


def test_switching_methods_and_views(driver: Any, page: Path) -> None:
    opened(driver, page)
    control(driver, "Frame").send_keys("\ue010")
    best = waited(lambda: pixels(driver))
    names = driver.find_elements("css selector", "details[open] .panels figcaption")
    assert names[0].text.startswith("Masks & 100%_more")
    curve = "return document.querySelector('.curve .first').getAttribute('d')"
    path = driver.execute_script(curve)
    choose(driver, "Method A", "Falling")
    falling = changed(driver, best)
    assert names[0].text == "Falling", "the last frame is not scored"
    assert driver.execute_script(curve) != path
    choose(driver, "View", "overlaid")
    over = changed(driver, falling)
    assert [name.is_displayed() for name in names] == [True, False, False]
    assert "outline: ground truth" in names[0].text
    assert "in another colour here" not in names[0].text
    choose(driver, "Method B", "Falling")
    changed(driver, over)
    assert "only Falling (in another colour here: both are of one kind)" in names[0].text
    keys = driver.find_elements("css selector", "details[open] .panels .key")
    fill = "return arguments[0].querySelector('path').getAttribute('fill')"
    first, second = (driver.execute_script(fill, key) for key in keys[:2])
    assert first != second
    path = driver.execute_script(curve)
    choose(driver, "Curve", "F")
    assert driver.execute_script(curve) != path
    assert quiet(driver)


def test_worst_cases_lead_to_their_frame(driver: Any, page: Path) -> None:
    opened(driver, page)
    link = driver.find_element("css selector", "#worst a[data-second=Falling]")
    frame = int(link.get_attribute("data-frame"))
    driver.execute_script("arguments[0].click()", link)
    anchor = link.get_attribute("href").partition("#")[2]
    shown = f"#{anchor.replace('.', chr(92) + '.')} .player"
    text = waited(lambda: driver.find_elements("css selector", f"{shown} .bar output"))[0]
    waited(lambda: text.text.startswith(f"{frame:05d}"))
    assert control(driver, "Method B", shown).get_attribute("value") == "Falling"
    assert quiet(driver)


@pytest.mark.parametrize("section", ["results", "costs", "differences", "sequences"])
def test_names_of_rows_stay_in_view(driver: Any, page: Path, section: str) -> None:
    opened(driver, page, PHONE)
    script = (
        "const scroll = document.querySelector(arguments[0] + ' .scroll');"
        "scroll.scrollLeft = 150;"
        "const name = scroll.querySelector('tbody th').getBoundingClientRect();"
        "const box = scroll.getBoundingClientRect();"
        "return [scroll.scrollLeft, name.left - box.left, name.width / box.width]"
    )
    scrolled, left, share = driver.execute_script(script, f"#{section}")
    if section != "sequences":
        assert scrolled == 150, "the table is wider than a phone"
    assert abs(left) < 1
    assert share < 0.5, "figures have the greater part"
    assert quiet(driver)


def test_meanings_of_columns_by_keyboard(driver: Any, page: Path) -> None:
    opened(driver, page, PHONE)
    button = driver.find_element("css selector", "#results thead th:nth-child(5) button")
    assert button.text == "Annotation"
    about = driver.find_element("id", button.get_attribute("aria-describedby"))
    assert not about.is_displayed()
    driver.find_element("css selector", "#results .columns summary").send_keys("\n")
    waited(about.is_displayed)
    assert about.text == "estimated hours of human annotation"
    assert quiet(driver)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_nothing_overflows(driver: Any, page: Path, size: tuple[int, int], scheme: str) -> None:
    opened(driver, page, size, scheme)
    driver.execute_script(
        "for (const each of document.querySelectorAll('details')) each.open = true"
    )
    waited(lambda: len(driver.find_elements("css selector", ".player canvas")) == 6)
    wide = "return [document.body.scrollWidth, document.documentElement.scrollWidth, innerWidth]"
    body, whole, window = driver.execute_script(wide)
    assert (body <= window, whole <= window) == (True, True)
    colour = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(255, 255, 255)") == (scheme == "light")
    assert quiet(driver)


def test_clips_beside_the_page(
    driver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(galleries_module, "MOST_CLIP_BYTES", 1000)
    text, files = render(collect([fake_run(tmp_path / "run", monkeypatch)]), [])
    assert len(files) == 2
    for name, content in {"index.html": text, **files}.items():
        write_text(tmp_path / name, content)
    opened(driver, tmp_path / "index.html")
    before = waited(lambda: pixels(driver))
    control(driver, "Frame").send_keys("\ue014")
    changed(driver, before)
    assert quiet(driver)


@pytest.fixture(scope="module")
def gap_page(
    tmp_path_factory: pytest.TempPathFactory, gap_folder: Path, gap_drawings: list[Drawing]
) -> Path:
    """A report of a run and of a measured gap."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gap_part, "draw_all", lambda results: gap_drawings)
        folder = tmp_path_factory.mktemp("gap-page")
        run = fake_run(folder / "run", patch)
        return build([run], folder / "report", gap_folders=[gap_folder]).page


def test_a_gap_is_sorted_filtered_and_seen(driver: Any, gap_page: Path) -> None:
    opened(driver, gap_page)
    link = driver.find_element("link text", "How far images are from video")
    link.click()
    assert driver.find_element("css selector", "#video-gap h2").is_displayed()
    head = driver.find_element("css selector", "#video-gap thead th:nth-child(4) button")
    assert head.text == "J video"
    head.click()
    # The reference encoder, last, segments nothing.
    networks = ["bright oracle", "bright adapted", "bright source"]
    reference = "reference encoder (prompted-only)"
    assert first_column(driver, "#video-gap") == [*networks, reference]
    head.send_keys("\n")
    assert first_column(driver, "#video-gap") == [*networks[::-1], reference]
    words = control(driver, "Filter rows", "#video-gap")
    words.send_keys("oracle")
    assert first_column(driver, "#video-gap") == ["bright oracle"]
    counted = driver.find_element("css selector", "#video-gap .filter output").text
    assert counted == "1 of 4 rows"
    drawings = driver.find_elements("css selector", "#video-gap figure > svg")
    assert len(drawings) > 10
    for drawing in drawings:
        assert drawing.is_displayed()
        assert min(drawing.size.values()) > 100
    assert quiet(driver)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_gap_fits_a_phone(driver: Any, gap_page: Path, scheme: str) -> None:
    opened(driver, gap_page, PHONE, scheme)
    wide = "return [document.documentElement.scrollWidth, innerWidth]"
    whole, window = driver.execute_script(wide)
    assert whole <= window
    script = (
        "return [...document.querySelectorAll('#video-gap .scroll')].map("
        "(each) => each.tabIndex === 0 && each.querySelector('tbody th').offsetWidth"
        " < each.clientWidth / 2)"
    )
    assert all(driver.execute_script(script)), "tables scroll by keyboard; names leave room"
    assert quiet(driver)


def test_without_scripts_the_stills_remain(driver: Any, page: Path) -> None:
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        driver.get(page.as_uri())
        stills = driver.find_elements("css selector", "details.stills img")
        assert stills
        assert stills[0].is_displayed()
        assert not driver.find_elements("css selector", ".filter, canvas")
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

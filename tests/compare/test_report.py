"""A whole comparison on real runs: kept, gone on with, reported; its page opened in a real browser."""

import fcntl
import html
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedpress.common.files import locked

Compare = Callable[..., subprocess.CompletedProcess[str]]  # calls the command

PNG = b"\x89PNG"
CODECS = "none; qsgd(4) | ans; small: ef | lowrank(nmse=0.1) | ans"
SMALL = ["--workload", "digits", "--rounds", "3", "--seeds", "0,1", "--set", "clients=10", "--set", "per-round=4"]


NONE = '[[candidate]]\nname = "none"\nup = "none"\ndown = "none"\n'
BAD = NONE + NONE.replace('"none"', '"bad"', 1) + 'strategy = "FedAvgM"\n"strategy.server-learning-rate" = 1e38\n'
AFTER = f"""
{NONE}
{NONE.replace('"none"', '"half"', 1)}after = [["shrink", "--prune", "0.5"]]
{NONE.replace('"none"', '"wrong"', 1)}after = [["shrink", "--factorise", "nonsense"]]
"""


def small(folder: Path, *options: str) -> list[str]:
    return [*SMALL, "--out", str(folder), *options]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, compare: Compare) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("compared") / "out"
    said = compare(*small(folder, "--codecs", CODECS, "--link", "3g", "--target", "0.3", "--allowed", "100"))
    assert said.returncode == 0, said.stderr
    assert "6/6" in said.stderr
    assert "recommended: " in said.stdout
    return folder, json.loads((folder / "results.json").read_text())


def test_every_file_is_there_and_says_the_same(done: tuple[Path, dict[str, Any]]) -> None:
    folder, result = done
    names = {path.name for path in folder.iterdir()}
    assert {"report.html", "results.json", "results.csv", "cells"} <= names
    pictures = [folder / name for name in names if name.endswith(".png")]
    assert len(pictures) == 4
    assert all(path.read_bytes().startswith(PNG) for path in pictures)
    assert len((folder / "results.csv").read_text().splitlines()) == 1 + 6 == 1 + len(result["cells"])
    costs = [row["to_target"]["both"] for row in result["candidates"]]
    assert None not in costs
    assert costs == sorted(costs), "rows are ranked by bytes both ways to the target"
    assert result["advice"][0]["choice"] == result["candidates"][0]["candidate"]
    page = (folder / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="http', page), "it opens offline"
    for row in result["candidates"]:
        mine = [cell for cell in result["cells"] if cell["candidate"] == row["candidate"]]
        assert row["final"]["mean"] == pytest.approx(sum(cell["accuracy"] for cell in mine) / 2)
        assert row["up"]["mean"] == pytest.approx(sum(cell["up"] for cell in mine) / 2)
        parts = {part: row["to_target"][part] for part in ("up", "down", "transport")}
        assert min(parts["up"], parts["transport"]) > 0
        assert row["to_target"]["both"] == pytest.approx(sum(parts.values()))
        assert row["shares"] == pytest.approx({part: size / sum(parts.values()) for part, size in parts.items()})
        assert html.escape(row["candidate"]) in page
    assert html.escape(result["advice"][0]["savings"]) in page
    assert rows_of(result)["none"]["up_ratio"] == pytest.approx(1.0, abs=0.02)
    assert rows_of(result)["none"]["lost"] == 0
    assert rows_of(result)["small"]["up_ratio"] > 8


def rows_of(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["candidate"]: row for row in result["candidates"]}


def test_what_is_done_is_not_run_again_and_a_new_codec_costs_its_own_runs(
    done: tuple[Path, dict[str, Any]], tmp_path: Path, compare: Compare
) -> None:
    folder = tmp_path / "again"
    shutil.copytree(done[0], folder)
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("cells/*/result.json")}
    # Another link, target and name ask nothing new of the runs.
    said = compare(*small(folder, "--codecs", CODECS.replace("small", "tiny") + "; fp16", "--link", "lora", "--json"))
    assert said.returncode == 0, said.stderr
    result = json.loads(said.stdout)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert len(list(folder.glob("cells/*"))) == 8
    assert rows_of(result).keys() == {"none", "qsgd(4) | ans", "tiny", "fp16"}
    assert rows_of(result)["none"]["seconds"]["mean"] > 1000 * rows_of(done[1])["none"]["seconds"]["mean"]


def test_a_run_whose_files_are_broken_is_run_again(
    done: tuple[Path, dict[str, Any]], tmp_path: Path, compare: Compare
) -> None:
    folder = tmp_path / "again"
    shutil.copytree(done[0], folder)
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("cells/*/result.json")}
    first, second = sorted(stamps)[:2]
    text = first.read_text()
    at = text.rindex('"accuracy": 0.') + len('"accuracy": 0.')
    first.write_text(f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}")
    rows = second.with_name("clients.csv").read_bytes()
    second.with_name("clients.csv").write_bytes(rows[:-20] + bytes([rows[-20] ^ 1]) + rows[-19:])
    said = compare(*small(folder, "--codecs", CODECS, "--json"))
    assert said.returncode == 0, said.stderr
    assert {path for path in stamps if path.stat().st_mtime_ns != stamps[path]} == {first, second}
    assert rows_of(json.loads(said.stdout))["none"]["final"] == rows_of(done[1])["none"]["final"]


def test_a_folder_has_one_comparison(done: tuple[Path, dict[str, Any]], compare: Compare) -> None:
    with locked(done[0]):
        said = compare(*small(done[0], "--codecs", CODECS))
    assert said.returncode == 1
    assert str(done[0]) in said.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_comparison_that_was_stopped_goes_on(tmp_path: Path, compare: Compare) -> None:
    folder = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "fedpress",
        "compare",
        *SMALL,
        "--out",
        str(folder),
        "--codecs",
        CODECS,
        "--jobs",
        "1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stderr or []:
        if line.startswith("1/6"):
            break
    process.send_signal(2)
    process.communicate(timeout=60)
    assert process.returncode == 130
    time.sleep(0.5)
    assert not subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, check=False).stdout
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("cells/*/result.json")}
    said = compare(*small(folder, "--codecs", CODECS))
    assert said.returncode == 0, said.stderr
    assert sum(path.stat().st_mtime_ns == stamp for path, stamp in kept.items()) >= 1
    assert len(json.loads((folder / "results.json").read_text())["cells"]) == 6


def test_a_run_that_fails_is_reported_and_the_others_go_on(tmp_path: Path, compare: Compare) -> None:
    """With a huge step the model is infinite after a round, and no node can train it."""
    suite = tmp_path / "suite.toml"
    suite.write_text(BAD)
    said = compare(*small(tmp_path / "out", "--codecs", str(suite), "--seeds", "0"))
    assert said.returncode == 1
    result = json.loads((tmp_path / "out" / "results.json").read_text())
    (failure,) = result["failures"]
    assert failure["candidate"] == "bad"
    assert "diverged" in failure["reason"]
    assert result["advice"][0]["choice"] == "none"
    assert failure["reason"] in html.unescape((tmp_path / "out" / "report.html").read_text())
    assert compare(*small(tmp_path / "out", "--codecs", str(suite), "--seeds", "0", "--json")).returncode == 1


def test_commands_after_a_run_make_models_that_are_reported(tmp_path: Path, compare: Compare) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(AFTER)
    said = compare(*small(tmp_path / "out", "--codecs", str(suite), "--seeds", "0", "--rounds", "1", "--json"))
    assert said.returncode == 1, said.stderr
    whole, half, wrong = (rows_of(json.loads(said.stdout))[name] for name in ("none", "half", "wrong"))
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 1, "they share a run"
    assert not whole["measures"]
    assert 0 < half["measures"]["made model, %"]["mean"] < 100
    assert half["measures"]["made model, kB"]["mean"] > 0
    assert "nonsense" in wrong["failures"][0]
    made = list((tmp_path / "out").glob("cells/*/after/*/finished"))
    stamps = [path.stat().st_mtime_ns for path in made]
    compare(*small(tmp_path / "out", "--codecs", str(suite), "--seeds", "0", "--rounds", "1"))
    assert [path.stat().st_mtime_ns for path in made] == stamps


@pytest.mark.parametrize("setting", ["seed = 5", "alpha = 0.1"])
def test_what_all_runs_share_is_refused_in_a_candidate(setting: str, tmp_path: Path, compare: Compare) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(f'[[candidate]]\nname = "x"\n{setting}\n')
    said = compare(*small(tmp_path / "out", "--codecs", str(suite)))
    assert (said.returncode, setting.split(maxsplit=1)[0] in said.stderr) == (2, True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--codecs", "topk(2) | ans"], "topk"),
        (["--seeds", "0,x"], "'0,x'"),
        (["--seeds", "1,1"], "1, 1"),
        (["--link", "5g"], "'5g'"),
        (["--suite", "huge"], "'huge'"),
        (["--target", "86"], "86"),
        (["--workload", "mnist"], "'mnist'"),
        (["--workload", "digits, digits"], "digits, digits"),
        (["--app", "examples/flower-torch"], "in place of"),
        (["--jobs", "-1"], "-1"),
        (["--out", __file__], "cannot be made"),
    ],
)
def test_a_wrong_call_ends_before_the_first_run(
    options: list[str], says: str, tmp_path: Path, compare: Compare
) -> None:
    said = compare(*small(tmp_path / "out", *options))
    assert (said.returncode, says in said.stderr) == (2, True)
    assert len(said.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_two_comparisons_do_not_write_into_one_folder(tmp_path: Path, compare: Compare) -> None:
    """Nor does a second one while a run of a killed comparison is alive: the run has the lock too."""
    folder = tmp_path / "out"
    folder.mkdir()
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    said = compare(*small(folder, "--codecs", "none"))
    os.close(lock)
    assert (said.returncode, "in use by another comparison" in said.stderr) == (1, True)
    assert not list(folder.iterdir())


def test_a_deadline_is_part_of_the_runs(tmp_path: Path, compare: Compare) -> None:
    options = ["--codecs", "none; fp16", "--seeds", "0", "--deadline", "3", "--link", "nb-iot"]
    said = compare(*small(tmp_path / "out", *options, "--json"))
    result = json.loads(said.stdout)
    # Whole models of 38 kB take 11 seconds each way: nobody makes it, so the run fails, and says so.
    assert said.returncode == 0 or result["failures"]
    assert {failure["candidate"] for failure in result["failures"]} == {"none", "fp16"}
    assert all("fewer than 1 replies" in failure["reason"] for failure in result["failures"])
    assert json.loads((tmp_path / "out" / "paces.json").read_text()).keys() >= {"digits: none", "digits: fp16"}


CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    if not CHROMIUM or not DRIVER:
        pytest.skip("no Chromium and chromedriver here")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"):
        options.add_argument(f"--{argument}")
    for argument in ("disable-component-update", "disable-sync", "window-size=1200,900"):
        options.add_argument(f"--{argument}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def point_at(browser: Any, mark: Any) -> None:
    """Move the pointer to the middle of a mark."""
    browser.execute_script(
        "const box = arguments[0].getBoundingClientRect();"
        "arguments[0].closest('svg').dispatchEvent(new PointerEvent('pointermove',"
        " {clientX: box.left + box.width / 2, clientY: box.top + box.height / 2}))",
        mark,
    )


def series_in(browser: Any, figure: str) -> list[str]:
    found = browser.find_elements("css selector", f"figure.{figure} g[data-series]")
    return list(dict.fromkeys(group.get_attribute("data-series") for group in found))


def choose(browser: Any, figure: str, number: int, value: str) -> None:
    """Choose a value of a figure's `number`-th list."""
    lists = browser.find_elements("css selector", f"figure.{figure} select")
    lists[number].find_element("css selector", f"option[value='{value}']").click()


def caption(browser: Any, figure: str) -> str:
    return str(browser.find_element("css selector", f"figure.{figure} figcaption").text)


@pytest.fixture
def page(done: tuple[Path, dict[str, Any]], browser: Any) -> Iterator[Any]:
    """The report's page, open; it must load nothing and log no error."""
    browser.get(f"file://{done[0] / 'report.html'}")
    yield browser
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def test_the_table_is_sorted_by_a_click(done: tuple[Path, dict[str, Any]], page: Any) -> None:
    _, result = done
    rows = lambda: [row.text for row in page.find_elements("css selector", ".sortable tbody td:first-child")]  # noqa: E731
    heads = page.find_elements("css selector", ".sortable thead th")
    at = [head.text.strip() for head in heads].index("bytes up")
    by_bytes = [r["candidate"] for r in sorted(result["candidates"], key=lambda r: r["up"]["mean"])]
    heads[at].find_element("css selector", "button").click()
    assert rows() == by_bytes
    assert heads[at].get_attribute("aria-sort") == "ascending"
    heads[at].find_element("css selector", "button").click()
    assert rows() == by_bytes[::-1]
    assert page.find_element("css selector", ".advice code").text == result["advice"][0]["choice"]


def test_points_and_lines_answer_the_pointer_and_the_keyboard(done: tuple[Path, dict[str, Any]], page: Any) -> None:
    _, result = done
    for row in result["candidates"]:
        mark = page.find_element("css selector", f"figure.costs g[data-series='{row['candidate']}'] circle")
        point_at(page, mark)
        assert caption(page, "costs").startswith(f"{row['candidate']}: {100 * row['final']['mean']:.2f} %")
    rounds = page.find_elements("css selector", "figure.curves g[data-series='small'] circle")
    point_at(page, rounds[-1])
    assert caption(page, "curves").startswith("small, seed ")
    chart = page.find_element("css selector", "figure.clients svg")
    chart.send_keys("\ue014")  # arrow to the right
    first = caption(page, "clients")
    chart.send_keys("\ue014")
    assert first
    assert caption(page, "clients") not in ("", first)


def test_series_are_switched_on_and_off(page: Any) -> None:
    figures = ("curves", "costs", "clients")
    everything = {figure: series_in(page, figure) for figure in figures}
    assert all(set(series) == {"none", "qsgd(4) | ans", "small"} for series in everything.values())
    buttons = page.find_elements("css selector", ".legend button")
    (button,) = [button for button in buttons if button.text.strip() == "qsgd(4) | ans"]
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert all(set(series_in(page, figure)) == {"none", "small"} for figure in figures)
    button.click()
    assert {figure: series_in(page, figure) for figure in figures} == everything


def test_losses_and_clients_are_views_of_the_same_runs(page: Any) -> None:
    for score in ("loss", "train_loss"):
        for along in ("round", "up", "down", "both", "seconds"):
            choose(page, "curves", 0, score)
            choose(page, "curves", 1, along)
            assert set(series_in(page, "curves")) == {"none", "qsgd(4) | ans", "small"}
    choose(page, "clients", 0, "up")
    (marks,) = [page.find_elements("css selector", "figure.clients g[data-series='none'] circle")]
    point_at(page, marks[-1])
    most = caption(page, "clients")
    assert most.startswith("none, client ")
    assert 4 <= len(marks) <= 10


def test_each_run_has_its_settings(page: Any) -> None:
    runs = page.find_elements("css selector", "#run option")
    assert len(runs) == 6
    next(run for run in runs if "small" in str(run.get_attribute("textContent"))).click()
    shown = dict(
        [cell.text for cell in row.find_elements("css selector", "td")]
        for row in page.find_elements("css selector", "#settings tr")
    )
    assert shown["server.up"] == "ef | lowrank(nmse=0.1) | ans"
    assert "training.lr" not in shown
    page.find_element("id", "differing").click()
    assert "training.lr" in page.find_element("id", "settings").text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_and_can_be_read_in_the_dark(
    scheme: str, done: tuple[Path, dict[str, Any]], browser: Any
) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(f"file://{done[0] / 'report.html'}")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    colours = browser.execute_script(
        "const of = (e, what) => getComputedStyle(e)[what].match(/\\d+/g).slice(0, 3).map(Number);"
        "const text = document.querySelector('svg text');"
        "return [of(document.body, 'backgroundColor'), of(document.body, 'color'), of(text, 'fill')]"
    )
    light = [luminance(colour) for colour in colours]
    for ink in light[1:]:
        high, low = max(ink, light[0]), min(ink, light[0])
        assert (high + 0.05) / (low + 0.05) > 7, "WCAG AAA"
    assert (light[0] < 0.1) == (scheme == "dark")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def luminance(colour: list[int]) -> float:
    """Relative luminance, https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

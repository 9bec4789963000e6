"""Candidates are read from text or a file; what cannot work is refused before the first run."""

from pathlib import Path

import pytest

from fedpress.common.errors import FedpressError, SettingError, SpecError
from fedpress.compression.registry import PRESETS
from fedpress.settings.server import ServerSettings
from fedpress.simulations.compare.candidates import Candidate, find_suite, read_candidate, read_candidates, read_suite
from fedpress.simulations.compare.grid import check, plan

ROOT = Path(__file__).parents[2]


def test_a_line_says_who_it_is_and_what_goes_which_way() -> None:
    assert read_candidate("none") == Candidate("none", "none", "none")
    assert read_candidate("qsgd(4) | ans") == Candidate("qsgd(4) | ans", "qsgd(4) | ans", ServerSettings.down)
    assert read_candidate(" fp16 > none ") == Candidate("fp16 > none", "fp16", "none")
    line = "ours: ef | topk(0.01) | ans > fp16"
    assert read_candidate(line) == Candidate("ours", "ef | topk(0.01) | ans", "fp16")


@pytest.mark.parametrize("text", ["topk(", "none >", "> none", "a: > b", "nonsense(3)"])
def test_a_line_that_is_no_candidate_is_named(text: str) -> None:
    with pytest.raises(SpecError):
        read_candidate(text)


SUITE = """
title = "two"
workloads = ["watch"]
seeds = [3]
[settings]
rounds = 2
up = "fp16"
[[candidate]]
name = "plain"
[[candidate]]
name = "small"
up = "bf16"
down = "none"
"strategy.server-momentum" = 0.5
after = [["shrink", "--prune", "0.5"], ["distil", "--model", "mlp"]]
"""


def test_a_file_has_candidates_with_settings_and_the_runs_they_share(tmp_path: Path) -> None:
    file = tmp_path / "suite.toml"
    file.write_text(SUITE)
    suite = read_suite(file)
    after = (("shrink", "--prune", "0.5"), ("distil", "--model", "mlp"))
    assert suite.candidates == (
        Candidate("plain", "fp16", ServerSettings.down),
        Candidate("small", "bf16", "none", {"strategy.server-momentum": 0.5}, after),
    )
    assert (suite.title, suite.workloads, suite.seeds) == ("two", ("watch",), (3,))
    assert suite.settings == {"server.rounds": 2, "server.up": "fp16"}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"small"', '"plain"', "plain"),
        ('name = "plain"', 'up = "fp16"', "name"),
        ("seeds = [3]", 'seeds = ["3"]', "seeds"),
        ("title", "titel", "titel"),
        ('"shrink"', '"keys"', "keys"),
        ('"bf16"', '"topk("', "topk"),
        ("[settings]", "[settings", "TOML"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(old: str, new: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "suite.toml"
    file.write_text(SUITE.replace(old, new))
    with pytest.raises(SettingError, match=says) as caught:
        read_suite(file)
    assert "suite.toml" in str(caught.value)
    with pytest.raises(SettingError):
        read_suite(tmp_path / "gone.toml")


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.toml")), ids=lambda path: path.stem)
def test_the_experiments_can_be_planned(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "experiments")  # whose peers have models of their own
    suite = read_suite(path)
    assert plan(suite.candidates, suite.workloads, suite.seeds, suite.settings)


@pytest.mark.parametrize(
    ("candidate", "settings", "says"),
    [
        ("ef | topk(0.1) | ans", {"stateless": True}, "stateless"),
        ("dgc(0.1)", {"policy": "budget", "policy.nbytes": 1000}, "budget|target|bytes"),
        ("lowrank(nmse=0.1) | ans", {"exclude": "*"}, "exclude"),
        ("fp16 > ef | fp16", {}, "ef"),
        ("none", {"strategy.server-momentum": 0.5}, "server-momentum"),
        ("none", {"strategy": "FedSomething"}, "FedSomething"),
        ("none", {"clients": 3, "per-round": 5}, "per-round"),
    ],
)
def test_what_cannot_work_together_is_found_before_the_first_run(candidate: str, settings: dict, says: str) -> None:
    with pytest.raises(FedpressError, match=says) as caught:
        check(plan(read_candidates(f"none > none;x: {candidate.replace(': ', '')}"), ["digits"], [0], settings))
    assert "\n" not in str(caught.value)


def test_the_suites_can_run_and_the_standard_one_has_every_preset() -> None:
    for name in ("quick", "standard"):
        suite = find_suite(name)
        check(plan(suite.candidates, ["digits"], suite.seeds[:1], suite.settings))
    codecs = " | ".join(f"{one.up} | {one.down}" for one in find_suite("standard").candidates)
    assert {part.split("(")[0].strip() for part in codecs.split("|")} >= PRESETS.keys()
    with pytest.raises(SettingError, match="'all'"):
        find_suite("all")


def test_a_cell_is_known_by_what_decides_its_bits() -> None:
    def key(**given: object) -> str:
        candidates = read_candidates(str(given.pop("codecs", "fp16")))
        return plan(candidates, ["digits"], [int(str(given.pop("seed", 0)))], given)[0].key  # type: ignore[arg-type]

    assert key() == key(workers=2) == key(out="there") == key(codecs="renamed: fp16")
    assert len({key(), key(seed=1), key(codecs="bf16"), key(rounds=3), key(lr=0.07)}) == 5

"""What can be compared is read from lines of text; what cannot work is said before the first run."""

from pathlib import Path

import pytest

from fedpress.common.errors import DataError, FedpressError, SettingError, SpecError
from fedpress.compression.registry import PRESETS
from fedpress.settings.server import ServerSettings
from fedpress.simulations.compare.candidates import SUITES, Candidate, find_suite, read_candidate, read_candidates
from fedpress.simulations.compare.grid import check, plan


def test_a_line_says_who_it_is_and_what_goes_which_way() -> None:
    assert read_candidate("none") == Candidate("none", "none", "none")
    assert read_candidate("qsgd(4) | ans") == Candidate("qsgd(4) | ans", "qsgd(4) | ans", ServerSettings.down)
    assert read_candidate(" fp16 > none ") == Candidate("fp16 > none", "fp16", "none")
    line = "ours: ef | topk(0.01) | ans > fp16 @ strategy=FedAvgM strategy.server-momentum=0.5"
    settings = {"strategy": "FedAvgM", "strategy.server-momentum": 0.5}
    assert read_candidate(line) == Candidate("ours", "ef | topk(0.01) | ans", "fp16", settings)


@pytest.mark.parametrize("text", ["topk(", "none >", "> none", "a: > b", "nonsense(3)"])
def test_a_line_that_is_no_candidate_is_named(text: str) -> None:
    with pytest.raises(SpecError):
        read_candidate(text)


def test_a_file_and_a_list_say_the_same(tmp_path: Path) -> None:
    file = tmp_path / "codecs.txt"
    file.write_text("# the two of them\nnone\n\nfp16 > fp16  # both ways\n")
    assert read_candidates(str(file)) == read_candidates("none; fp16 > fp16")
    file.write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(DataError, match="cannot be read"):
        read_candidates(str(file))
    for text, says in ((";", "one at least"), ("none;none", "'none' twice")):
        with pytest.raises(SettingError, match=says):
            read_candidates(text)


@pytest.mark.parametrize(
    ("candidate", "settings", "says"),
    [
        ("ef | topk(0.1) | ans", {"stateless": True}, "stateless"),
        ("dgc(0.1)", {"policy": "budget", "policy.nbytes": 1000}, "budget|target|bytes"),
        ("lowrank(nmse=0.1) | ans", {"exclude": "*"}, "exclude"),
        ("fp16 > ef | fp16", {}, "ef"),
        ("none @ strategy.server-momentum=0.5", {}, "server-momentum"),
        ("none @ strategy=FedSomething", {}, "FedSomething"),
        ("none", {"clients": 3, "per-round": 5}, "per-round"),
    ],
)
def test_what_cannot_work_together_is_found_before_the_first_run(candidate: str, settings: dict, says: str) -> None:
    with pytest.raises(FedpressError, match=says) as caught:
        check(plan(read_candidates(f"none > none;x: {candidate.replace(': ', '')}"), ["digits"], [0], settings))
    assert "\n" not in str(caught.value)


def test_the_suites_can_run_and_the_standard_one_has_every_preset() -> None:
    for name in SUITES:
        suite = find_suite(name)
        check(plan(read_candidates(";".join(suite.candidates)), ["digits"], suite.seeds[:1], {}))
    parts = [part for one in SUITES["standard"].candidates for part in one.replace(">", "|").split("|")]
    assert {part.split("(")[0].strip() for part in parts} >= PRESETS.keys()
    with pytest.raises(SettingError, match="'all'"):
        find_suite("all")


def test_a_cell_is_known_by_what_decides_its_bits() -> None:
    def key(**given: object) -> str:
        candidates = read_candidates(str(given.pop("codecs", "fp16")))
        return plan(candidates, ["digits"], [int(str(given.pop("seed", 0)))], given)[0].key  # type: ignore[arg-type]

    assert key() == key(workers=2) == key(out="there") == key(codecs="renamed: fp16")
    assert len({key(), key(seed=1), key(codecs="bf16"), key(rounds=3), key(lr=0.07)}) == 5

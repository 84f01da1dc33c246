from pathlib import Path

from gateway.demo import words
from gateway.demo.findings import find
from gateway.demo.lake import Lake
from gateway.demo.watch import Evidence
from tests.kit.july import write_july


def told(folder: Path, **right: float) -> words.Verdict:
    july = write_july(folder, **right)  # type: ignore[arg-type]
    with Lake(july.lake, july.client) as lake:
        return words.verdict(find(lake, Evidence()))


def test_the_better_of_two_better_models_is_named(tmp_path: Path) -> None:
    verdict = told(tmp_path, champion_right=0.5, challenger_right=0.7, candidate_right=0.95)
    assert verdict.best == "candidate"
    assert "the candidate did best" in verdict.headline


def test_two_better_models_that_nothing_tells_apart_leave_the_choice_free(tmp_path: Path) -> None:
    verdict = told(tmp_path, champion_right=0.5, challenger_right=0.8, candidate_right=0.83)
    assert verdict.best == "challenger"
    assert "does not tell them apart" in verdict.headline


def test_models_that_are_no_better_are_not_promoted(tmp_path: Path) -> None:
    verdict = told(tmp_path, champion_right=0.8, challenger_right=0.8, candidate_right=0.8)
    assert verdict.best is None
    assert verdict.headline == "No model is shown to be better than the champion yet"


def test_a_worse_candidate_is_called_worse(tmp_path: Path) -> None:
    verdict = told(tmp_path, champion_right=0.9, challenger_right=0.9, candidate_right=0.6)
    assert verdict.best is None
    assert any("the candidate is worse" in sentence for sentence in verdict.sentences)

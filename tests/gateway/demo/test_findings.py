from pathlib import Path

import pytest

from gateway.demo.findings import Findings, find
from gateway.demo.lake import Lake, LakeEmpty, counts
from gateway.demo.watch import Evidence
from routing.experiments.mcnemar import Verdict
from tests.kit.july import July, write_july


def found(july: July, evidence: Evidence | None = None) -> Findings:
    with Lake(july.lake, july.client) as lake:
        return find(lake, evidence or Evidence())


@pytest.fixture(scope="module")
def july(tmp_path_factory: pytest.TempPathFactory) -> July:
    return write_july(tmp_path_factory.mktemp("july"))


def test_each_arm_has_the_accuracy_it_was_made_with(july: July) -> None:
    arms = found(july).arms
    for name, made in (("champion", 0.6), ("challenger", 0.8), ("candidate", 0.9)):
        assert arms[name].accuracy.low - 0.02 <= made <= arms[name].accuracy.high + 0.02
    assert arms["candidate"].rows == 600
    assert arms["champion"].rows + arms["challenger"].rows == 600


def test_flights_that_never_landed_have_no_say_in_quality(july: July) -> None:
    findings = found(july)
    assert findings.arms["candidate"].labelled == 588
    assert findings.summary["labelled"] == 588
    assert findings.summary["asked"] == 600


def test_the_candidate_is_found_better_and_the_day_is_named(july: July) -> None:
    paired = found(july).paired
    assert paired is not None
    assert paired.state.verdict is Verdict.BETTER
    assert paired.decided_at is not None
    assert paired.decided_day is not None
    assert paired.state.rows == len(paired.steps)
    assert paired.days_ahead + paired.days_behind <= paired.days == 6


def test_flights_without_an_aircraft_stay_outside_the_test(july: July) -> None:
    findings = found(july)
    assert findings.paired is not None
    assert findings.summary["unit_missing"] == 15
    with Lake(july.lake, july.client) as lake:
        (inside,) = lake.rows(
            "SELECT count(*) FROM july WHERE variant = 'champion' AND late IS NOT NULL AND unit IS NOT NULL"
        )
    assert findings.paired.state.rows == inside[0]


def test_log_and_lake_agree_and_so_does_the_gateways_own_test(july: July) -> None:
    paired = found(july).paired
    assert paired is not None
    own = Evidence(units=paired.state.rows, wins=paired.state.wins, losses=paired.state.losses)
    checks = found(july, own).checks
    assert len(checks) == 10
    assert all(check.holds for check in checks)


def test_an_answer_that_the_lake_does_not_know_is_noticed(tmp_path: Path) -> None:
    july = write_july(tmp_path)
    july.answers[3][5] = "candidate"
    del july.labels[0]
    july.log()
    wrong = [check.claim for check in found(july).checks[:7] if not check.holds]
    assert any("same id" in claim for claim in wrong)
    assert any(claim.startswith("labels the world posted") for claim in wrong)


def test_shares_and_agreement_are_told_by_time(july: July) -> None:
    findings = found(july)
    assert findings.split.groupby("since")["share"].sum().round(9).eq(1.0).all()
    assert set(findings.agreement["live"]) == {"champion", "challenger"}
    assert findings.calibration.groupby("arm")["n"].sum()["candidate"] == 588


def test_counts_come_from_the_log_of_the_tables(july: July, tmp_path: Path) -> None:
    assert counts(july.lake) == {"predictions": 600, "shadows": 600, "labels": 588}
    assert counts(str(tmp_path)) == {"predictions": 0, "shadows": 0, "labels": 0}


def test_a_lake_without_tables_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(LakeEmpty, match="predictions, shadows, labels"):
        Lake(str(tmp_path), tmp_path)

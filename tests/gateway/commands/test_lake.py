import pytest

from gateway.commands.lake import label_window_s, local_lake, moment, route_of, window
from gateway.commands.talk import CommandFailed
from gateway.settings import Settings
from routing.traffic import DAY_S


def test_moments_are_dates_or_instants_and_utc_where_they_say_no_zone():
    assert moment("--from", None) is None
    assert moment("--from", "1970-01-02") == moment("--from", "1970-01-02T00:00:00Z") == DAY_S
    assert moment("--to", "1970-01-02T01:00:00+01:00") == DAY_S
    with pytest.raises(CommandFailed, match="--to: wanted a date"):
        moment("--to", "yesterday")


def test_a_window_begins_before_it_ends():
    assert window(None, "1970-01-02") == (None, DAY_S)
    assert window("1970-01-02T02:00:00+02:00", "1970-01-03") == (DAY_S, 2 * DAY_S)
    for until in ("1970-01-02", "1970-01-01T23:59:59Z"):
        with pytest.raises(CommandFailed, match="wanted --from before --to, got 1970-01-02 and 1970-01-0"):
            window("1970-01-02", until)


def test_a_lake_that_is_not_there_is_told_with_the_remedy(tmp_path):
    settings = Settings(state_dir=str(tmp_path))
    with pytest.raises(CommandFailed, match="--state-dir"):
        local_lake(settings)
    (tmp_path / "lake" / "predictions").mkdir(parents=True)
    assert local_lake(settings) == f"{tmp_path}/lake"
    assert local_lake(Settings(lake_uri="s3://bucket/lake")) == "s3://bucket/lake"


def test_without_state_labels_count_as_long_as_by_default(tmp_path):
    assert route_of(Settings(state_dir=str(tmp_path)), "phishing") is None
    assert label_window_s(None) == 30 * DAY_S

import pytest

from gateway.state.database import Database
from gateway.state.standing import Followed, Ramp, Standings
from routing.errors import Problem
from routing.following import Following


@pytest.fixture
def standings(tmp_path):
    database = Database(tmp_path / "state.db")
    yield Standings(database)
    database.close()


def test_following_is_as_new_until_it_was_looked_at_and_then_as_it_was_kept(standings):
    assert standings.followed("a") == Followed()
    kept = Followed(
        following=Following(state="refused", seen={"champion": "3"}, refused={"champion": "3"}),
        since_unix_us=7,
        problems=(Problem("variants[0].model", "answers_differ", "too large"),),
    )
    standings.keep_followed("a", kept)
    assert standings.followed("a") == kept
    assert standings.followed("b") == Followed()


def test_a_ramp_is_kept_and_taken_away(standings):
    assert standings.ramp("a") is None
    ramp = Ramp(state="paused", revision=3, base={"champion": 1.0}, step=1, left_us=5, reason="by ann")
    standings.keep_ramp("a", ramp)
    assert standings.ramp("a") == ramp
    standings.keep_ramp("a", None)
    assert standings.ramp("a") is None

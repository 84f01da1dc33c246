import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.following import Following, activated, arm_of, look, offered, refuse, resumed
from routing.validate import validate

SERVED = {"champion": "1"}
FRESH = Following()


def moved(to="2", follow="auto", before=FRESH, served=None):
    return look(before, follow=follow, served=served or SERVED, named={"champion": to})


@pytest.mark.parametrize(("follow", "state"), [("auto", "trying"), ("propose", "proposed"), ("ignore", "ignored")])
def test_an_alias_that_moved_is_answered_as_the_route_says(follow, state):
    after = moved(follow=follow)
    assert (after.state, after.wanted) == (state, {"champion": "2"})


def test_what_is_served_already_needs_nothing():
    assert moved("1") == Following(seen={"champion": "1"})


def test_a_proposal_stays_until_it_is_served_or_withdrawn():
    proposed = moved(follow="propose")
    assert moved(follow="propose", before=proposed) == proposed
    assert moved("1", before=proposed).state == "current"
    assert moved("2", before=proposed, served={"champion": "2"}).state == "current"


def test_a_newer_move_replaces_a_proposal():
    assert moved("3", follow="propose", before=moved(follow="propose")).wanted == {"champion": "3"}


def test_aliases_that_move_together_are_taken_together():
    after = look(FRESH, follow="auto", served={"a": "1", "b": "2"}, named={"a": "2", "b": "1"})
    assert after.wanted == {"a": "2", "b": "1"}


def test_a_rollback_pauses_until_the_alias_moves_again():
    on_two = look(FRESH, follow="auto", served={"champion": "2"}, named={"champion": "2"})
    paused = activated(on_two, served=SERVED, earlier={"champion": "2"}, is_rollback=True)
    assert paused.state == "paused"
    still = moved("2", before=paused)
    assert still.state == "paused"
    assert moved("3", before=still).state == "trying"
    assert moved("1", before=still).state == "current"


def test_a_rollback_is_not_undone_by_another_alias_that_moves():
    two = {"champion": "2", "challenger": "5"}
    seen = look(FRESH, follow="auto", served=two, named=two)
    served = {"champion": "1", "challenger": "5"}
    paused = activated(seen, served=served, earlier=two, is_rollback=True)
    after = look(paused, follow="auto", served=served, named={"champion": "2", "challenger": "6"})
    assert (after.state, after.wanted, after.left) == ("trying", {"challenger": "6"}, {"champion": "2"})
    assert offered(after, served) == {"challenger": "6"}
    served["challenger"] = "6"
    taken = activated(after, served=served, earlier={"champion": "1", "challenger": "5"}, is_rollback=False)
    assert (taken.state, taken.left) == ("paused", {"champion": "2"})
    assert offered(taken, served) == {"champion": "2"}
    again = look(taken, follow="auto", served=served, named={"champion": "3", "challenger": "6"})
    assert (again.state, again.wanted, again.left) == ("trying", {"champion": "3"}, {})


def test_arms_that_a_rollback_brings_back_wait_like_the_others():
    before = Following(seen={"champion": "1", "challenger": "9"})  # of a challenger that was taken out long ago
    served = {"champion": "1", "challenger": "2"}
    paused = activated(before, served=served, earlier={"champion": "1"}, is_rollback=True)
    after = look(paused, follow="auto", served=served, named={"champion": "1", "challenger": "7"})
    assert (after.state, after.left) == ("paused", {"challenger": "7"})
    assert look(after, follow="auto", served=served, named={"champion": "1", "challenger": "8"}).state == "trying"


def test_what_a_rollback_left_and_what_was_refused_are_both_kept():
    trying = Following(state="trying", seen={"a": "2", "b": "2"}, wanted={"b": "2"}, left={"a": "2"})
    after = refuse(trying, {"b"})
    assert (after.state, after.refused, after.left) == ("paused", {"b": "2"}, {"a": "2"})


def test_a_resumed_endpoint_takes_what_the_alias_names():
    assert moved("2", before=Following(state="paused", seen={"champion": "2"})).state == "paused"
    assert moved("2", before=resumed()).state == "trying"


def test_a_promotion_is_not_undone_by_the_alias_that_has_yet_to_follow():
    before = look(FRESH, follow="auto", served=SERVED, named={"champion": "1"})
    promoted = activated(before, served={"champion": "5"}, earlier=SERVED, is_rollback=False)
    waiting = look(promoted, follow="auto", served={"champion": "5"}, named={})
    assert waiting.state == "current"
    assert look(waiting, follow="auto", served={"champion": "5"}, named={"champion": "5"}).state == "current"


def test_an_alias_that_moved_while_an_older_version_went_live_is_still_a_move():
    before = look(FRESH, follow="auto", served=SERVED, named={"champion": "1"})
    put = activated(before, served={"champion": "2"}, earlier=SERVED, is_rollback=False)
    assert look(put, follow="auto", served={"champion": "2"}, named={"champion": "3"}).state == "trying"


def test_what_somebody_took_all_the_same_is_neither_refused_nor_wanted_any_more():
    refused = refuse(moved(), {"champion"})
    taken = activated(refused, served={"champion": "2"}, earlier=SERVED, is_rollback=False)
    assert (taken.state, taken.refused, taken.wanted) == ("current", {}, {})
    proposed = moved(follow="propose")
    assert activated(proposed, served={"champion": "2"}, earlier=SERVED, is_rollback=False).state == "current"
    paused = activated(refused, served={"champion": "2"}, earlier=SERVED, is_rollback=True)
    assert activated(paused, served={"champion": "2"}, earlier=SERVED, is_rollback=False).state == "paused"


def test_a_refused_version_is_not_tried_again_until_the_alias_moves():
    refused = refuse(moved(), {"champion"})
    assert refused.state == "refused"
    assert moved(before=refused).state == "refused"
    assert moved("3", before=refused).wanted == {"champion": "3"}
    back = moved("1", before=refused)
    assert back.refused == {}
    assert moved("2", before=back).state == "trying"


def test_one_unfit_version_does_not_hold_the_others_back():
    trying = look(FRESH, follow="auto", served={"a": "1", "b": "1"}, named={"a": "2", "b": "2"})
    after = refuse(trying, {"b"})
    assert (after.state, after.wanted, after.refused) == ("trying", {"a": "2"}, {"b": "2"})
    assert look(after, follow="auto", served={"a": "1", "b": "1"}, named={"a": "2", "b": "2"}).wanted == {"a": "2"}


def test_an_alias_that_is_gone_changes_nothing():
    proposed = moved(follow="propose")
    gone = look(proposed, follow="propose", served=SERVED, named={})
    assert gone.state == "current"
    assert look(gone, follow="propose", served=SERVED, named={"champion": "1"}).state == "current"


def test_an_arm_is_found_by_the_path_of_its_problem():
    document = {
        "endpoint": "e",
        "variants": [{"name": "champion", "model": "models:/m/1", "weight": 1}],
        "mirrors": [{"name": "shadow", "model": "models:/m/2"}],
    }
    route = validate(document)
    assert arm_of(route, "variants[0].model") == "champion"
    assert arm_of(route, "mirrors[0].model") == "shadow"
    assert arm_of(route, "mirrors[7].model") is None
    assert arm_of(route, "") is None


VERSIONS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("123"))


@given(VERSIONS, st.lists(VERSIONS, max_size=6), st.sampled_from(["auto", "propose", "ignore"]))
def test_looking_twice_at_the_same_aliases_decides_nothing_new(served, looks, follow):
    following = FRESH
    for named in looks:
        named = {arm: version for arm, version in named.items() if arm in served}
        following = look(following, follow=follow, served=served, named=named)
        assert look(following, follow=follow, served=served, named=named) == following
        assert all(served[arm] != version for arm, version in following.wanted.items())
        assert not following.wanted.items() & following.refused.items()

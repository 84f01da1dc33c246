import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.experiments.mcnemar import McNemar, Verdict
from routing.experiments.pairing import Entry, PairedRow, Pairing, is_right

ROW = PairedRow(
    prediction_id=b"0" * 16,
    unit=b"anna",
    experiment=True,
    unit_missing=False,
    label="spam",
    champion_label="spam",
    candidate_label="ham",
)


def row(**changes):
    return msgspec.structs.replace(ROW, **changes)


def test_a_unit_enters_once_with_its_first_eligible_row():
    pairing = Pairing(keys_in_use=False)

    entries = [
        pairing.admit(one) for one in (row(label=None), ROW, ROW, row(prediction_id=b"1" * 16), row(unit=b"ben"))
    ]

    assert entries == [Entry.UNLABELLED, Entry.ENTERED, Entry.SEEN, Entry.SEEN, Entry.ENTERED]
    assert len(pairing) == 2


@pytest.mark.parametrize(
    ("changes", "entry"),
    [
        ({"experiment": False}, Entry.OUTSIDE),
        ({"unit_missing": True, "unit": None}, Entry.OUTSIDE),
        ({"label": None}, Entry.UNLABELLED),
        ({"champion_label": None}, Entry.UNANSWERED),
        ({"candidate_label": None}, Entry.UNANSWERED),
        ({"keyed": False}, Entry.UNKEYED),
    ],
)
def test_a_row_that_may_not_enter_leaves_its_unit_free(changes, entry):
    pairing = Pairing(keys_in_use=True)

    assert pairing.admit(row(**changes)) is entry
    assert pairing.admit(ROW) is Entry.ENTERED


def test_labels_without_a_key_count_where_keys_are_not_in_use():
    assert Pairing(keys_in_use=False).admit(row(keyed=False)) is Entry.ENTERED


def test_where_the_route_has_no_unit_each_request_is_one():
    pairing = Pairing(keys_in_use=False)

    assert pairing.admit(row(unit=None)) is Entry.ENTERED
    assert pairing.admit(row(unit=None)) is Entry.SEEN
    assert pairing.admit(row(unit=None, prediction_id=b"1" * 16)) is Entry.ENTERED


def test_a_unit_that_looks_like_a_request_is_another_unit():
    pairing = Pairing(keys_in_use=False)

    assert pairing.admit(row(unit=None)) is Entry.ENTERED
    assert pairing.admit(row(unit=b"0" * 16)) is Entry.ENTERED


def test_the_number_of_units_is_bounded():
    pairing = Pairing(keys_in_use=False, units_max=2)

    entries = [pairing.admit(row(unit=unit)) for unit in (b"1", b"2", b"3", b"2")]

    assert entries == [Entry.ENTERED, Entry.ENTERED, Entry.FULL, Entry.SEEN]


@given(st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), max_size=30), st.integers(0, 30))
def test_a_restart_from_the_stored_order_admits_the_same_rows(units, cut):
    rows = [row(unit=unit) for unit in units]
    whole = Pairing(keys_in_use=False)
    entries = [whole.admit(one) for one in rows]

    restarted = Pairing(keys_in_use=False)
    for one, entry in zip(rows[:cut], entries, strict=False):
        if entry is Entry.ENTERED:
            restarted.readmit(one.unit, one.prediction_id)

    assert [restarted.admit(one) for one in rows[cut:]] == entries[cut:]


def test_units_with_many_rows_of_one_fate_raise_no_false_verdicts():
    """Ten rows a unit, all alike: by rows nearly every test of equal models would speak (research), by units few may. 200 replicates."""
    chance = np.random.default_rng(17)
    false = 0
    for _ in range(200):
        pairing, test = Pairing(keys_in_use=False), McNemar()
        for unit, won in enumerate(chance.random(150) < 0.5):
            for repeat in range(10):
                one = row(unit=b"%d" % unit, prediction_id=b"%d" % repeat, champion_label="ham", candidate_label="spam")
                if won:
                    one = row(unit=b"%d" % unit, prediction_id=b"%d" % repeat)
                if pairing.admit(one) is Entry.ENTERED:
                    champion = is_right(one.label, one.champion_label)
                    test = test.observe(
                        champion_is_right=champion, candidate_is_right=is_right(one.label, one.candidate_label)
                    )
        assert test.rows == 150
        false += test.verdict is not Verdict.INCONCLUSIVE

    assert false <= 18


@pytest.mark.parametrize(
    ("label", "predicted"),
    [
        ("spam", "spam"),
        (1, "1"),
        (1.0, "1"),
        (1, "1.0"),
        ("1", "1.0"),
        (True, "true"),
        (True, "True"),
        (True, "1"),
        (False, "0.0"),
        (1, "true"),
        ("true", "1"),
        (0.5, "0.5"),
        ("é", "é"),
    ],
)
def test_a_prediction_is_right_when_it_says_the_same(label, predicted):
    assert is_right(label, predicted)


@pytest.mark.parametrize(
    ("label", "predicted"), [("spam", "Spam"), (1, "0"), (True, "false"), (True, "0"), ("a", "1"), (2, "2a")]
)
def test_a_prediction_is_wrong_when_it_says_another_thing(label, predicted):
    assert not is_right(label, predicted)

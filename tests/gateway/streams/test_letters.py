import datetime as dt

import msgspec
import pytest
from deltalake import DeltaTable

from gateway.spool.reader import writers
from gateway.streams.letters import DeadLetters, Letter, letter_of, only_table, redriven
from tests.kit.spooled import START_UNIX_US, encode, predictions, request, shadows

NOW = dt.datetime.fromtimestamp(START_UNIX_US / 1e6, dt.UTC)


class Post:
    """A folder and a table for letters, and those who look after them, one after another."""

    def __init__(self, folder):
        self.folder = folder / "letters"
        self.uri = str(folder / "lake" / "dead_letters")

    def letters(self, **bounds):
        return DeadLetters(self.folder, self.uri, **bounds)

    def rows(self):
        return DeltaTable(self.uri).to_pyarrow_dataset().to_table().sort_by("letter").to_pylist()


@pytest.fixture
def post(tmp_path):
    return Post(tmp_path)


def letter(sequence=7, *, writer="worker-1", table=None, days=0):
    at = START_UNIX_US - days * 86_400_000_000
    return Letter(writer=writer, sequence=sequence, reason="why", table=table, at_unix_us=at)


def test_a_letter_is_on_the_disk_before_it_is_delivered_and_in_the_table_alone_after(post):
    letters = post.letters()
    letters.put(letter(), b"\xc1")
    assert (post.folder / "worker-1-000000000007.frame").read_bytes() == b"\xc1"
    assert {path.stat().st_mode & 0o777 for path in post.folder.iterdir()} == {0o600}
    assert letters.deliver()
    assert not list(post.folder.iterdir())
    (row,) = post.rows()
    assert (row["writer"], row["writer_sequence"], row["reason"], row["payload"]) == ("worker-1", 7, "why", b"\xc1")
    assert (row["kind"], row["endpoint"], row["table"], row["at"]) == (None, None, None, NOW)


def test_what_can_be_read_of_a_frame_is_told(post):
    (whole,) = encode(predictions([request(0)], [0.5]))
    letters = post.letters()
    letters.put(letter(1, table="predictions"), whole)
    letters.put(letter(2, table="metrics"), encode(shadows([0], ["1"], ["1"]))[0])
    letters.put(letter(3), msgspec.msgpack.encode(["p", "../../etc", 7]))
    assert letters.deliver()
    assert [(row["kind"], row["endpoint"], row["table"]) for row in post.rows()] == [
        ("predictions", "phishing", "predictions"),
        ("shadows", "phishing", "metrics"),
        ("predictions", None, None),
    ]


def test_the_same_frame_again_is_one_letter_also_after_a_crash_between_table_and_folder(post):
    first = post.letters()
    first.put(letter(), b"x")
    first.put(letter(), b"x")
    assert first.count == 1
    kept = {path: path.read_bytes() for path in post.folder.iterdir()}
    assert first.deliver()
    for path, data in kept.items():  # as if it had been killed before these were deleted
        path.write_bytes(data)
    second = post.letters()
    second.put(letter(), b"x")
    assert second.deliver()
    third = post.letters()
    third.put(letter(), b"x")
    assert third.deliver()
    assert len(post.rows()) == 1
    assert third.count == 0


def test_a_table_that_cannot_be_written_keeps_letters_waiting_and_nobody_else(post):
    blocked = DeadLetters(post.folder, "/proc/nowhere/dead_letters")
    blocked.put(letter(), b"x")
    assert not blocked.deliver()
    assert blocked.failure
    healed = post.letters()
    assert healed.deliver()
    assert [row["payload"] for row in post.rows()] == [b"x"]


def test_above_the_bound_letters_are_delivered_at_once_or_else_counted_only(post):
    letters = post.letters(letters_max=2)
    for sequence in range(5):
        letters.put(letter(sequence), b"x")
    assert (letters.count, letters.dropped) == (5, 0)
    blocked = DeadLetters(post.folder / "other", "/proc/nowhere/dead_letters", letters_max=2)
    for sequence in range(5):
        blocked.put(letter(sequence), b"x")
    assert (blocked.count, blocked.dropped) == (5, 3)


def test_letters_go_with_their_endpoints_retention_and_others_after_the_shortest(post):
    letters = post.letters()
    (of_phishing,) = encode(predictions([request(0)], [0.5]))
    (of_other,) = encode(predictions([request(0)], [0.5], endpoint="other"))
    for sequence, (payload, days) in enumerate(
        [(of_phishing, 5), (of_other, 5), (b"\xc1", 5), (b"\xc1", 1), (of_other, 40)]
    ):
        letters.put(letter(sequence, days=days), payload)
    assert letters.deliver()
    cutoffs = {"phishing": NOW - dt.timedelta(days=2), "other": NOW - dt.timedelta(days=39)}
    assert letters.expire(cutoffs, NOW) == 3
    assert [row["writer_sequence"] for row in post.rows()] == [1, 3]
    assert DeadLetters(post.folder, post.uri + "_none").expire(cutoffs, NOW) == 0


def test_a_letter_that_holds_what_is_to_be_forgotten_goes_wherever_it_lies(post):
    letters = post.letters()
    letters.put(letter(1), b"about ann in the table")
    letters.put(letter(2), b"about bob")
    assert letters.deliver()
    letters.put(letter(3), b"about ann on the way")
    assert letters.forget([b"ann", b"a.b"]) == 2
    assert letters.forget([]) == 0
    assert letters.deliver()
    assert [row["writer_sequence"] for row in post.rows()] == [2]


def test_the_writer_of_a_letter_that_is_read_again_says_whose_it_is_and_where_it_belongs(post):
    writer = redriven("worker-1-000000000007", "metrics", "try")
    assert (only_table(writer), letter_of(writer)) == ("metrics", "worker-1-000000000007")
    assert only_table(redriven("worker-1-000000000007", None, "try")) is None
    assert only_table("worker-1") is None
    letters = post.letters()
    letters.put(letter(1, writer=writer), b"x")
    assert letters.deliver()
    assert [(row["writer"], row["writer_sequence"]) for row in post.rows()] == [("worker-1", 7)]
    assert writers(post.folder) == []

import shutil

import pytest
from deltalake import DeltaTable

from gateway.commands import letters as command
from gateway.commands.letters import redrive_letters, show_letters
from gateway.commands.talk import CommandFailed
from gateway.settings import Settings
from gateway.spool.reader import SegmentReader, writers
from gateway.streams.letters import Letter, letter_of
from gateway.streams.table import LakeTable
from tests.kit.spooled import Place, encode, pid_text, predictions, request

(GOOD,) = encode(predictions([request(0)], [0.5]))


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path / "var")
    made.spool.mkdir(parents=True)
    return made


@pytest.fixture
def settings(tmp_path):
    return Settings(state_dir=str(tmp_path / "var"))


def put(place, *payloads, table=None):
    """Letters of these frames, as if an older release could not read them."""
    for sequence, payload in enumerate(payloads, 1):
        letter = Letter(writer="worker-1", sequence=sequence, reason="why", table=table, at_unix_us=sequence)
        place.letters.put(letter, payload)
    assert place.letters.deliver()


def kept(place):
    rows = DeltaTable(f"{place.uri}/dead_letters").to_pyarrow_dataset().to_table()
    return sorted(rows["letter"].to_pylist())


def spooled(place):
    return [
        frame.payload for writer in writers(place.spool) for frame in SegmentReader(place.spool / writer).read(1 << 20)
    ]


def drain(place):
    lake = place.lake()
    while lake.read():
        assert lake.commit(), lake.failure
    assert lake.commit(), lake.failure
    assert place.letters.deliver()
    lake.close()


def test_what_lies_aside_is_listed_without_its_frames(place, settings, capsys):
    show_letters(settings, (), as_json=False)
    assert "no dead letters" in capsys.readouterr().out
    put(place, b"\xc1 secret", GOOD)
    show_letters(settings, (), as_json=True)
    out = capsys.readouterr().out
    assert "worker-1-000000000001" in out
    assert "phishing" in out
    assert "secret" not in out
    with pytest.raises(CommandFailed, match="no dead letter is called nobody"):
        show_letters(settings, ("nobody",), as_json=False)


def test_letters_that_can_be_read_by_now_come_to_the_lake_once_and_the_others_come_back(place, settings, capsys):
    put(place, GOOD, b"\xc1")
    redrive_letters(settings, (), as_json=False)
    assert "2 letters are in the spool again" in capsys.readouterr().out
    assert kept(place) == []
    drain(place)
    rows = DeltaTable(f"{place.uri}/predictions").to_pyarrow_dataset().to_table()
    assert rows["prediction_id"].to_pylist() == [pid_text(0)]
    assert kept(place) == ["worker-1-000000000002"]
    redrive_letters(settings, (), as_json=True)  # again and again, without an end but without a loss
    drain(place)
    assert kept(place) == ["worker-1-000000000002"]


def test_single_letters_are_given_by_name(place, settings):
    put(place, GOOD, b"\xc1")
    redrive_letters(settings, ("worker-1-000000000001",), as_json=True)
    assert spooled(place) == [GOOD]
    assert kept(place) == ["worker-1-000000000002"]


@pytest.mark.parametrize("ended", ["before the table", "before the spool"])
def test_a_run_that_was_ended_half_way_is_ended_by_the_next_and_no_frame_comes_twice(
    place, settings, monkeypatch, ended
):
    put(place, GOOD)
    with monkeypatch.context() as patched:
        if ended == "before the table":
            spool_frame = command._spooled
            patched.setattr(command, "_spooled", lambda *given: (spool_frame(*given), pytest.fail("killed")))
        else:
            patched.setattr(command, "_given", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            redrive_letters(settings, (), as_json=True)
    assert spooled(place) == []
    redrive_letters(settings, (), as_json=True)
    assert spooled(place) == [GOOD]
    assert [letter_of(writer) for writer in writers(place.spool)] == ["worker-1-000000000001"]
    assert not list((settings.state_path / "redrive").iterdir())


def test_without_a_gateways_state_there_is_nothing_to_give(settings):
    shutil.rmtree(settings.state_path, ignore_errors=True)
    with pytest.raises(CommandFailed, match="no gateway has its state here"):
        redrive_letters(settings, (), as_json=False)


def test_however_many_letters_there_are_the_table_is_written_and_synced_once(place, settings, monkeypatch):
    put(place, *[b"\xc1%d" % number for number in range(20)])
    synced = []
    real = LakeTable.sync
    monkeypatch.setattr(LakeTable, "sync", lambda table: synced.append(table) or real(table))
    before = DeltaTable(f"{place.uri}/dead_letters").version()
    redrive_letters(settings, (), as_json=False)
    assert DeltaTable(f"{place.uri}/dead_letters").version() == before + 1
    assert len(synced) == 1
    assert sorted(spooled(place)) == sorted(b"\xc1%d" % number for number in range(20))

import pytest

from gateway.processes.health import FIRST_WORD_S, HUNG_S, Watch, is_hung


@pytest.mark.parametrize("role", ["worker", "shadow", "control"])
def test_silence_is_measured_from_the_last_beat(role):
    assert not is_hung(role, 0, 100, 100 + HUNG_S[role])
    assert is_hung(role, 0, 100, 100.1 + HUNG_S[role])


def test_before_its_first_word_a_process_has_longer():
    assert not is_hung("worker", 0, None, FIRST_WORD_S)
    assert is_hung("worker", 0, None, FIRST_WORD_S + 0.1)


def test_who_was_asleep_does_not_judge():
    watch = Watch()
    assert [watch.may_judge(now) for now in (0.0, 0.5, 1.0, 60.0, 60.5)] == [False, True, True, False, True]

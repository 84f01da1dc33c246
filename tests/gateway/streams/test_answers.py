from gateway.streams.answers import StagedAnswers
from tests.kit.staged import stage_linear


def test_a_manifest_is_read_once_and_a_missing_one_is_looked_for_again(tmp_path):
    answers = StagedAnswers(tmp_path)
    assert answers("ab12") is None
    staged = stage_linear(tmp_path)
    assert answers(staged.digest) == staged.answer
    (tmp_path / staged.digest / "staged.json").unlink()
    assert answers(staged.digest) == staged.answer
    assert answers("../" + staged.digest) is None

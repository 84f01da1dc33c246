import os

import pytest

from gateway.keys.bootstrap import BootstrapFile, BootstrapInvalid
from gateway.keys.key import digest_of

KEY = "0123456789abcdef" * 4


def test_the_key_is_the_line_in_the_file(tmp_path):
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    assert BootstrapFile(str(path)).digest() == digest_of(KEY)


def test_without_a_file_there_is_no_key(tmp_path):
    assert BootstrapFile(None).digest() is None
    absent = BootstrapFile(str(tmp_path / "absent"))
    absent.check()
    assert absent.digest() is None


def test_a_file_that_changes_or_goes_is_followed(tmp_path):
    path = tmp_path / "key"
    path.write_text(KEY)
    file = BootstrapFile(str(path))
    assert file.digest() == digest_of(KEY)
    path.write_text(KEY[::-1])
    os.utime(path, ns=(1, 1))
    assert file.digest() == digest_of(KEY[::-1])
    path.unlink()
    assert file.digest() is None


@pytest.mark.parametrize("text", ["", "short", "two words " * 5, "ü" * 40, "x" * 2000, KEY + "\n" + KEY])
def test_a_file_without_a_key_prevents_a_start_and_opens_nothing(tmp_path, text):
    path = tmp_path / "key"
    path.write_text(text)
    with pytest.raises(BootstrapInvalid) as refused:
        BootstrapFile(str(path)).check()
    assert text.strip() == "" or text.strip() not in str(refused.value)
    assert BootstrapFile(str(path)).digest() is None

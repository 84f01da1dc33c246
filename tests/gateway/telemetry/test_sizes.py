import pytest

from gateway.telemetry.sizes import BOUNDS, CLASSES, size_class


@pytest.mark.parametrize(
    ("size", "name"), [(0, "1KiB"), (1024, "1KiB"), (1025, "16KiB"), (256 << 10, "256KiB"), (1 << 30, "larger")]
)
def test_a_size_belongs_to_the_smallest_class_that_holds_it(size, name):
    assert size_class(size) == name


def test_there_is_one_class_more_than_bounds():
    assert len(CLASSES) == len(BOUNDS) + 1

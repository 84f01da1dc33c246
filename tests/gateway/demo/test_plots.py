from gateway.demo import plots
from gateway.demo.estimates import Estimate
from gateway.demo.findings import ARMS, Arm


def arm(name: str, value: float) -> Arm:
    estimate = Estimate(value=value, low=value - 0.01, high=value + 0.01)
    return Arm(
        name=name, rows=10, labelled=9, accuracy=estimate, plain_accuracy=value, log_loss=estimate, auc=0.7, expected_late=0.3, actual_late=0.3
    )  # fmt: skip


def test_every_arm_has_a_colour_and_a_mark_of_its_own() -> None:
    assert set(plots.COLOURS) == set(plots._MARKS) == set(ARMS)
    assert len(set(plots.COLOURS.values())) == len(set(plots._MARKS.values())) == len(ARMS)


def test_a_picture_is_whole_svg_with_readable_text() -> None:
    svg = plots.accuracy([arm("champion", 0.7), arm("candidate", 0.8)])
    assert svg.lstrip().startswith("<?xml")
    assert svg.rstrip().endswith("</svg>")
    assert "candidate</text>" in svg
    assert "80.0%</text>" in svg

import io

from rich.console import Console

from gateway.demo.replay import Progress
from gateway.demo.view import View, plain, screen
from gateway.demo.watch import Evidence, Quality, Sight

SIGHT = Sight(
    progress=Progress(at="2013-07-12T18:05+00:00", asked=400, total=1000, answered=399, failed=1, by_variant={"champion": 399}),
    asked_per_s=412.0,
    revision=2,
    reason="even shares [soon]",
    shares={"champion": 0.5, "challenger": 0.5},
    agreement=0.871,
    quality=[Quality(name="champion", role="live", n=399, labelled=300, accuracy=0.7, log_loss=0.6), Quality(name="candidate", role="mirror", n=3)],
    evidence=Evidence(units=200, wins=30, losses=10, p_better=1e-9, verdict="better"),
)  # fmt: skip


def test_a_file_gets_whole_lines_without_colours() -> None:
    out = io.StringIO()
    with View(Console(file=out, force_terminal=False)) as view:
        view.show(SIGHT)
        view.show(SIGHT)
    assert out.getvalue().count("\n") == 1, "the second comes too soon"
    assert "\x1b" not in out.getvalue()


def test_the_line_tells_time_failures_shares_and_verdict() -> None:
    line = plain(SIGHT)
    for part in ("July 12, 14:05", "1 failed", "champion 50%", "agreement 87.1%", "better, odds 10^9 to 1"):
        assert part in line


def test_the_screen_fits_a_terminal_and_shows_the_same() -> None:
    out = io.StringIO()
    Console(file=out, width=100, force_terminal=True, color_system=None).print(screen(SIGHT))
    text = out.getvalue()
    assert max(len(line) for line in text.splitlines()) <= 96
    for part in ("400 of 1,000 flights", "412 a second", "revision 2: even shares [soon]", "70.0%", "10^9 to 1"):
        assert part in text


def test_nothing_known_yet_is_shown_as_such() -> None:
    out = io.StringIO()
    Console(file=out, width=100).print(screen(Sight()))
    assert "waiting for the first landings" in out.getvalue()

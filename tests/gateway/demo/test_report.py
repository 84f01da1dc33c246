import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gateway.demo import plots, words
from gateway.demo.findings import Findings
from gateway.demo.report import write
from gateway.demo.watch import Evidence
from tests.kit.july import write_july

MOVES = [
    plots.Move(revision=1, share=0.1, reason="a tenth <first>"),
    plots.Move(revision=2, share=0.5, reason="even shares"),
]


class Images(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Findings, words.Verdict]:
    folder = tmp_path_factory.mktemp("report")
    july = write_july(folder)
    findings, verdict = write(july.lake, july.client, MOVES, Evidence(), folder / "report.html")
    return (folder / "report.html").read_text(), findings, verdict


def test_the_report_needs_no_network(written: tuple[str, Findings, words.Verdict]) -> None:
    assert not re.search(r"(?:src|href)=\"(?!data:)|(?:src|href)=[^\"]", written[0])
    assert "url(" not in written[0]


def test_every_picture_can_be_read_without_eyes(written: tuple[str, Findings, words.Verdict]) -> None:
    parser = Images()
    parser.feed(written[0])
    assert len(parser.images) == 7
    assert all(image["alt"] for image in parser.images)


def test_the_head_says_who_did_better(written: tuple[str, Findings, words.Verdict]) -> None:
    page, _, verdict = written
    assert f"<h1>{verdict.headline}</h1>" in page
    assert verdict.best in {"candidate", "challenger"}


def test_reasons_of_others_are_text_and_no_markup(written: tuple[str, Findings, words.Verdict]) -> None:
    assert "a tenth &lt;first&gt;" in written[0]


def test_the_same_lake_gives_the_same_report(tmp_path: Path) -> None:
    july = write_july(tmp_path)
    for name in ("one.html", "two.html"):
        write(july.lake, july.client, MOVES, Evidence(), tmp_path / name)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_a_check_that_fails_is_shown_as_such(written: tuple[str, Findings, words.Verdict]) -> None:
    # The gateway's own evidence was left empty above, so that these checks cannot hold.
    page, findings, _ = written
    assert page.count("✗ differ") == sum(not check.holds for check in findings.checks) == 3

"""The documents are held to the code: paths that they name exist, tests that they promise exist, sources and tests mirror each other."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("gateway", "routing", "models", "runoff")
PATHS = re.compile(r"`((?:gateway|routing|models|runoff|tests|docs|deploy|loadtests)/[\w./-]+)`")
DOCUMENTS = [ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "docs/grpc-door.md")]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "loadtests/results/README.md"]

MIRRORED_ELSEWHERE = {
    "routing/records.py": "tests/gateway/test_recorder.py",
    "gateway/request.py": "tests/gateway/test_corridor.py",
    "gateway/ticket.py": "tests/gateway/test_dataplane.py",
    "gateway/assignment.py": "tests/gateway/test_dataplane.py",
    "gateway/runs.py": "tests/gateway/test_dataplane.py",
    "gateway/replies.py": "tests/gateway/test_dataplane.py",
    "gateway/live.py": "tests/gateway/test_dataplane.py",
    "models/errors.py": "tests/gateway/test_errors.py",
    "routing/errors.py": "tests/gateway/test_errors.py",
    "models/signature.py": "tests/models/test_signature_check.py",
    "models/staged.py": "tests/models/test_catalog.py",
    "models/tensors.py": "tests/models/test_signature_check.py",
    # reached through the one thing that uses them
    "gateway/admin/tuning.py": "tests/gateway/commands/test_models.py",
    "gateway/control/tuning.py": "tests/gateway/commands/test_models.py",
    "gateway/cli_models.py": "tests/gateway/commands/test_models.py",
    "gateway/evidence/shape.py": "tests/gateway/commands/test_models.py",
    "gateway/rpc/wire/inflow.py": "tests/gateway/rpc/wire/test_connection.py",
    "gateway/rpc/wire/outflow.py": "tests/gateway/rpc/wire/test_connection.py",
    "gateway/rpc/wire/shared.py": "tests/gateway/rpc/wire/test_protocol.py",
}
"""Types without behaviour of their own, parts of one noun, and the test that uses them most."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_that_a_document_names_exists(document: Path) -> None:
    missing = [path for path in PATHS.findall(document.read_text()) if not (ROOT / path).exists() and "/x/" not in path]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    lost = []
    for link in re.findall(r"\]\((?!https?://)([^)\s]+)\)", page.read_text()):
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (heading and heading not in headings(target)):
            lost.append(link)
    assert not lost


def headings(page: Path) -> set[str]:
    """The anchors that a page's headings have where Markdown is shown."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "docs/grpc-door.md"])
def test_every_invariant_names_a_test_that_exists(page: str) -> None:
    promised = set(re.findall(r"`(test_\w+)`", (ROOT / page).read_text()))
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    missing = [name for name in promised if not re.search(rf"def {name}\b", tests)]
    assert promised
    assert not missing


def test_every_source_has_its_test() -> None:
    """`x/y.py` has `tests/x/test_y.py`, or a test in the mirrored folder imports it."""
    missing = []
    for source in (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))):
        relative = source.relative_to(ROOT)
        if source.name in ("__init__.py", "__main__.py") or "_pb2" in source.name:
            continue
        folder = ROOT / "tests" / relative.parent
        module = str(relative.with_suffix("")).replace("/", ".")
        package, _, name = module.rpartition(".")
        imported = re.compile(
            rf"(from {re.escape(module)} import|import {re.escape(module)}\b|from {re.escape(package)} import [^\n]*\b{name}\b)"
        )
        elsewhere = MIRRORED_ELSEWHERE.get(str(relative))
        if not (
            (folder / f"test_{source.name}").exists()
            or any(imported.search(test.read_text()) for test in folder.glob("test_*.py"))
            or (elsewhere and (ROOT / elsewhere).exists())
        ):
            missing.append(str(relative))
    assert not missing, f"{len(missing)} sources without a test: {missing}"


def test_nothing_names_a_path_of_some_machine_or_a_registry() -> None:
    stray = re.compile(r"/root/|/home/\w+/|pypi\.org|pythonhosted|registry\.npmjs|deb\.debian")
    found = []
    for path in ROOT.rglob("*"):
        if path.is_file() and path.suffix in {
            ".py",
            ".md",
            ".toml",
            ".lock",
            ".txt",
            ".yaml",
            ".yml",
            ".json",
            ".sh",
            "",
        }:
            parts = path.relative_to(ROOT).parts
            if (parts[0].startswith(".") and parts[0] != ".ci") or "__pycache__" in parts or path == Path(__file__):
                continue
            if path.stat().st_size < 2_000_000 and stray.search(path.read_text(errors="ignore")):
                found.append(str(path.relative_to(ROOT)))
    assert not found

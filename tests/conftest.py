"""What holds for every test: Hypothesis has no deadline, since a speed is never asserted in a test, and draws the same examples each time.

So a change is judged by the change. `HYPOTHESIS_PROFILE=explore` draws new examples, and more of them; what it finds becomes an `@example`.
"""

import os

import pytest
from hypothesis import settings

settings.register_profile("runoff", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=2_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "runoff"))

LONG = {"acceptance", "conformance", "faults", "slow"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a parallel run the files that start gateways come first, so that at its end no process waits long for another."""
    if hasattr(config, "workerinput"):
        long = {item.path for item in items if any(marker.name in LONG for marker in item.iter_markers())}
        items.sort(key=lambda item: item.path not in long)

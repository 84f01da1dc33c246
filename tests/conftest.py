"""What holds for every test: Hypothesis has no deadline, since a speed is never asserted in a test, and draws the same examples each time.

So a change is judged by the change. `HYPOTHESIS_PROFILE=explore` draws new examples, and more of them; what it finds becomes an `@example`.
"""

import os

from hypothesis import settings

settings.register_profile("runoff", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=2_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "runoff"))

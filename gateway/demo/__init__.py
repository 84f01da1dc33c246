"""`runoff demo`: the whole life cycle on real data. Nothing in it is faked: it starts the gateway as anybody would, and reads what it wrote."""

from pathlib import Path


def main(state_dir: Path | None = None, *, keep: bool = False, quick: bool = False, as_json: bool = False) -> int:
    """Runs the demo; answers the exit status: 0, or 1 when it failed or the applications' log and the lake differ.

    `state_dir` must be empty; without one a temporary directory is made, and left with the report in it. `keep` leaves the gateway
    up until Ctrl-C. `quick` is three days of July in place of all 31.
    """
    from gateway.demo.story import tell

    return tell(state_dir, keep=keep, quick=quick, as_json=as_json)

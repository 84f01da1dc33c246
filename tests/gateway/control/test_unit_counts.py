import asyncio

from gateway.control.unit_counts import ASK_S, MARGIN_S, UnitCounts

STEP = ("phishing", 7, 1000.0)


class Lake:
    """Answers what it is told to, or fails; `asked` are the questions."""

    def __init__(self, units: dict[str, int] | None) -> None:
        self.units = units
        self.asked: list[tuple[object, ...]] = []

    def __call__(self, *question: object) -> dict[str, int]:
        self.asked.append(question)
        if self.units is None:
            raise OSError("no lake")
        return self.units


async def counted(units: UnitCounts) -> None:
    if units._asking is not None:
        await asyncio.wait([units._asking])


async def test_a_count_is_there_at_a_later_look_stays_behind_the_present_and_is_asked_for_now_and_then() -> None:
    now, lake = [0.0], Lake({"champion": 9, "challenger": 1})
    units = UnitCounts(lake, clock=lambda: now[0])
    assert units.of(STEP, 1000.0) is None
    now[0] += ASK_S - 1
    assert units.of(STEP, 1029.0) is None
    assert not lake.asked
    now[0] += 1
    assert units.of(STEP, 1030.0) is None
    await counted(units)
    assert lake.asked == [(*STEP, 1030.0 - MARGIN_S)]
    for _ in range(3):
        assert units.of(STEP, 1031.0) == {"champion": 9, "challenger": 1}
    assert len(lake.asked) == 1


async def test_another_step_begins_without_a_count() -> None:
    now, lake = [0.0], Lake({"champion": 9})
    units = UnitCounts(lake, clock=lambda: now[0])
    units.of(STEP, 1000.0)
    now[0] += ASK_S
    units.of(STEP, 1030.0)
    await counted(units)
    assert units.of(("phishing", 8, 1030.0), 1030.0) is None


async def test_a_lake_that_cannot_be_read_leaves_what_was_known() -> None:
    now, lake = [0.0], Lake({"champion": 9})
    units = UnitCounts(lake, clock=lambda: now[0])
    units.of(STEP, 1000.0)
    for readable in ({"champion": 9}, None, {"champion": 11}):
        lake.units = readable
        now[0] += ASK_S
        units.of(STEP, 1000.0 + now[0])
        await counted(units)
        assert units.of(STEP, 1000.0 + now[0]) == (readable or {"champion": 9})


async def test_a_lake_that_answers_slowly_is_asked_about_one_endpoint_after_the_other() -> None:
    """Each question takes longer than the time between two about one endpoint, and the first is always looked at first."""
    now, lake = [0.0], Lake({"champion": 9})
    units = UnitCounts(lake, clock=lambda: now[0])
    steps = [(name, 7, 1000.0) for name in ("a", "b", "c")]
    for _ in range(6):
        for step in steps:
            units.of(step, 1000.0 + now[0])
        now[0] += ASK_S
        await counted(units)
    assert [asked[0] for asked in lake.asked] == ["a", "b", "c", "a", "b"]


async def test_an_endpoint_whose_ramp_is_over_is_waited_for_by_nobody() -> None:
    now, lake = [0.0], Lake({"champion": 9})
    units = UnitCounts(lake, clock=lambda: now[0])
    units.of(("over", 3, 0.0), 1000.0)
    now[0] += 1
    for _ in range(3):
        units.of(STEP, 1000.0 + now[0])
        now[0] += ASK_S
        await counted(units)
    assert {asked[0] for asked in lake.asked} == {"phishing"}

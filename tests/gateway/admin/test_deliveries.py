import pytest

from gateway.admin.deliveries import DELIVERIES_MAX, SignatureRefused, Webhooks
from tests.kit.deliveries import BODY, NOW, SECRET, signed


class Nudged:
    def __init__(self):
        self.count = 0
        self.webhooks = Webhooks(SECRET, self, clock=lambda: NOW)

    def __call__(self):
        self.count += 1

    def take(self, headers, body=BODY):
        return self.webhooks.take(headers, body.encode())


@pytest.fixture
def nudged():
    return Nudged()


def test_what_mlflow_signs_nudges_once(nudged):
    assert nudged.take(signed())
    assert not nudged.take(signed())
    assert nudged.take(signed("d-2"))
    assert nudged.count == 2


@pytest.mark.parametrize(
    "headers",
    [
        {},
        signed(secret="another"),
        signed(body="{}"),
        signed() | {"x-mlflow-delivery-id": "d-9"},
        signed() | {"x-mlflow-timestamp": str(NOW + 1)},
        signed() | {"x-mlflow-signature": "v1,"},
        signed() | {"x-mlflow-signature": signed()["x-mlflow-signature"].replace("v1,", "v2,")},
        signed(at=NOW - 301),
        signed(at=NOW + 301),
        signed(at="soon"),
        signed(at=f"-{NOW}"),
    ],
)
def test_what_is_not_signed_with_our_secret_now_is_refused(nudged, headers):
    with pytest.raises(SignatureRefused):
        nudged.take(headers)
    assert nudged.count == 0


def test_one_of_several_signatures_is_enough(nudged):
    both = f"{signed(secret='old')['x-mlflow-signature']} {signed()['x-mlflow-signature']}"
    assert nudged.take(signed() | {"x-mlflow-signature": both})


def test_the_memory_of_deliveries_is_bounded(nudged):
    for number in range(DELIVERIES_MAX + 10):
        nudged.take(signed(f"d-{number}"))
    assert len(nudged.webhooks._seen) == DELIVERIES_MAX
    assert not nudged.take(signed(f"d-{DELIVERIES_MAX}"))

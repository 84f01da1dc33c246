"""Deliveries of webhooks, signed by MLflow's own hand."""

from mlflow.webhooks.delivery import _generate_hmac_signature

SECRET = "a shared secret"
BODY = '{"entity": "model_version_alias", "action": "created", "data": {"name": "phishing", "alias": "é"}}'
NOW = 1_790_000_000


def signed(delivery="d-1", at=NOW, body=BODY, secret=SECRET):
    """Headers as MLflow itself makes them."""
    signature = _generate_hmac_signature(secret, delivery, str(at), body)
    return {"x-mlflow-signature": signature, "x-mlflow-timestamp": str(at), "x-mlflow-delivery-id": delivery}

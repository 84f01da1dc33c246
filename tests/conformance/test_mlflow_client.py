"""MLflow's own scoring client, unchanged, against the REST door."""

import pandas as pd
import pytest
import requests
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from mlflow.version import VERSION


@pytest.fixture
def client(served):
    host, port = served.rest.split(":")
    return ScoringServerClient(host, port)


def test_it_finds_the_server_and_its_version(client):
    client.ping()
    assert client.get_version() == VERSION


def test_it_reads_predictions_for_arrays_and_frames(client):
    frame = pd.DataFrame([[1.0, 1, 1, 1], [-1.0, -1, -1, -1]], columns=list("abcd"))
    for data in (frame, frame.to_numpy()):
        assert client.invoke(data).get_predictions()[0].tolist() == [1, 0]


def test_parameters_are_taken(client):
    assert client.invoke([[1, 1, 1, 1]], params={"temperature": 1}).get_predictions().shape == (1, 1)


def test_an_error_is_raised_with_its_words(client):
    with pytest.raises(Exception, match=r"Invocation failed.*error_code"):
        client.invoke([[1, 1]])


def test_the_forms_of_databricks_and_of_named_endpoints(served):
    body = {"dataframe_records": [{"age": 1, "visits": 2, "plan": "a"}]}
    for path in ("/endpoints/churn/invocations", "/serving-endpoints/churn/invocations"):
        sent = requests.post(served.url + path, json=body, timeout=10)
        assert sent.json()["predictions"] == [{"score": 3.0, "plan_out": "a"}]

import json
import re
from pathlib import Path

import pytest
import yaml

from deploy.grafana import make
from gateway.telemetry.catalogue import METRICS

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus" / "rules.yaml").read_text())


def panels() -> list[dict]:
    return [panel for panel in json.loads(make.DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    alerts = [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]
    return shown + alerts


def exposed() -> dict[str, tuple[str, ...]]:
    """Every name that a scrape can show, with its labels."""
    names: dict[str, tuple[str, ...]] = {}
    for metric in METRICS.values():
        if metric.kind == "histogram":
            names[f"{metric.name}_bucket"] = (*metric.labels, "le")
            names[f"{metric.name}_sum"] = names[f"{metric.name}_count"] = metric.labels
        else:
            names[metric.name] = metric.labels
    return names


def test_the_dashboard_is_what_its_program_makes():
    assert make.DASHBOARD.read_text(encoding="utf-8") == make.text(), "run: python -m deploy.grafana.make"


def test_every_expression_uses_metrics_that_exist_with_labels_that_they_have():
    names = exposed()
    for expression in expressions():
        for name, selector in re.findall(r"\b(runoff_\w+)(\{[^}]*\})?", expression):
            assert name in names, f"{name} in {expression}"
            for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector):
                assert label in names[name], f"{label} of {name}"


def test_groupings_use_labels_of_their_metric():
    names = exposed()
    for expression in expressions():
        for labels, name in re.findall(r"by \(([^)]*)\) \((?:rate|increase)\((runoff_\w+)", expression):
            assert {label.strip() for label in labels.split(",")} <= {*names[name], "job"}, expression


def test_every_metric_is_shown_somewhere():
    used = {name for expression in expressions() for name in re.findall(r"\brunoff_\w+", expression)}
    for metric in METRICS.values():
        assert any(name.startswith(metric.name) for name in used), f"{metric.name} is on no panel and in no alert"


def test_panels_do_not_overlap_and_have_their_own_ids():
    seen: set[tuple[int, int]] = set()
    shown = json.loads(make.DASHBOARD.read_text())["panels"]
    for panel in shown:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & seen, panel["title"]
        seen |= cells
    assert len({panel["id"] for panel in shown}) == len(shown)


@pytest.mark.parametrize("rule", RULES["groups"][0]["rules"], ids=lambda rule: rule["alert"])
def test_every_alert_says_what_to_do_first(rule):
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "action"}

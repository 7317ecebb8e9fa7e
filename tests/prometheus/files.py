"""Checks the files of dashboards, rules and runbook without running them."""

import re
import subprocess
import sys

import yaml

from queries import dashboards
from world import ROOT

RULES = ROOT / "deploy/prometheus"


def alerts():
    groups = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def the_dashboards_are_what_their_source_makes():
    subprocess.run([sys.executable, ROOT / "grafana/build.py", "--check"], check=True)


def each_panel_says_what_to_do():
    seen = set()
    for name, dashboard in dashboards().items():
        assert dashboard["uid"] not in seen, dashboard["uid"]
        seen.add(dashboard["uid"])
        variables = [variable["name"] for variable in dashboard["templating"]["list"]]
        assert variables[:3] == ["datasource", "job", "instance"], variables
        ids, titles = set(), set()
        for panel in panels(dashboard):
            place = f"{name}: {panel['title']}"
            assert len(panel["description"]) > 40, f"{place}: no description"
            assert panel["fieldConfig"]["defaults"]["unit"], f"{place}: no unit"
            assert panel["datasource"]["uid"] == "${datasource}", place
            assert panel["id"] not in ids and panel["title"] not in titles, f"{place}: twice"
            ids.add(panel["id"])
            titles.add(panel["title"])
            grid = panel["gridPos"]
            assert grid["x"] + grid["w"] <= 24, place
            if panel["type"] == "timeseries":
                for target in panel["targets"]:
                    assert target["legendFormat"] != "__auto", f"{place}: no legend"
            for target in panel["targets"]:
                for name_ in re.findall(r"\$\{?(\w+)", target["expr"]):
                    assert name_ in [*variables, "__rate_interval", "__range"], f"{place}: ${name_}"
                if "vector(" not in target["expr"]:
                    for selector in re.findall(r"\w+\{([^}]*)\}", target["expr"]):
                        assert '$job"' in selector and '$instance"' in selector, f"{place}: all nodes are counted"


def each_alert_can_be_acted_on():
    runbook = (ROOT / "docs/runbook.md").read_text()
    section = re.search(r"^## Alerts\n(.*?)(?=^## |\Z)", runbook, re.M | re.S).group(1)
    entries = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", section, re.M | re.S))
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        notes = rule["annotations"]
        assert set(notes) == {"summary", "description", "runbook_url"}, name
        assert notes["runbook_url"].endswith(f"/docs/runbook.md#{name.lower()}"), name
        if "absent" not in rule["expr"]:
            assert "{{" in notes["description"] + notes["summary"], f"{name}: names nothing"
        entry = entries.get(name, "")
        for part in ("Cause", "Look", "Fix"):
            assert f"**{part}**" in entry, f"{name}: the runbook has no {part}"
    assert set(entries) == set(alerts()), set(entries) ^ set(alerts())


def panels_of_the_runbook_are_in_the_dashboards():
    titles = {panel["title"] for dashboard in dashboards().values() for panel in panels(dashboard)}
    named = set(re.findall("«([^»]+)»", (ROOT / "docs/runbook.md").read_text()))
    assert named <= titles, named - titles


def each_alert_is_tested():
    """Each alert is tested once when it fires and once when it does not."""
    groups = yaml.safe_load((RULES / "alerts_test.yml").read_text())["tests"]
    fires, keeps_still = set(), set()
    for group in groups:
        for test in group.get("promql_expr_test", []):
            [name] = re.findall(r'alertname="(\w+)"', test["expr"])
            (fires if test["exp_samples"] else keeps_still).add(name)
    assert fires == keeps_still == set(alerts()), (fires ^ set(alerts()), keeps_still ^ set(alerts()))


def promtool_takes_them(binaries):
    for arguments in (
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ):
        done = subprocess.run([binaries / "promtool", *arguments], cwd=RULES, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def provisioning_fits():
    folder = ROOT / "grafana/provisioning"
    [source] = yaml.safe_load((folder / "datasources/prometheus.yml").read_text())["datasources"]
    scrape = yaml.safe_load((RULES / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape, source
    [provider] = yaml.safe_load((folder / "dashboards/tidegate.yml").read_text())["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards", provider


def check(binaries):
    for test in (
        the_dashboards_are_what_their_source_makes,
        each_panel_says_what_to_do,
        each_alert_can_be_acted_on,
        panels_of_the_runbook_are_in_the_dashboards,
        each_alert_is_tested,
        provisioning_fits,
    ):
        test()
        print(f"ok: {test.__name__}")
    promtool_takes_them(binaries)
    print("ok: promtool_takes_them")

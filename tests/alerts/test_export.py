"""Rules for Prometheus, judged by promtool: `check rules` and `test rules`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from langmeter.alerts import Rule, burn_rate
from langmeter.alerts.export import prometheus_rules
from langmeter.cli.main import main
from langmeter.exporters import semconv
from tests.e2e.servers import tool

RULES = [
    Rule("latency.p95 > 2s", by="model", window="5m", for_="2m", keep_firing="1m", name="slow"),
    Rule("error_rate[openai/gpt-*] > 5%", window="5m", severity="critical", name="errors"),
    Rule("cost > 10 per 1h", by=("provider", "model"), name="money"),
    Rule("calls < 1 per 10m", name="silence"),
    Rule("error_rate > +50%", baseline="1h", name="more errors"),
    *burn_rate(objective="1%", name="burn"),
    *burn_rate("cost", budget=720, name="spend"),
]
LEFT_OUT = [
    Rule("anomalies > 0"),
    Rule("budget('a').used > 80%"),
    Rule("success_rate < 60%"),
    Rule("errors > 5", by="team"),
    Rule("latency.p95 > +50%"),
    Rule("errors[tool search] > 5"),
]
CALLS = f"{semconv.CALLS.prometheus_name}_total"
MODEL = 'gen_ai_provider_name="openai", gen_ai_request_model="gpt-4o"'


def promtool(*arguments: object) -> None:
    binary = tool("promtool", "prometheus/usr/bin/promtool")
    command = [binary, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.process
def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    """Every kind of rule that PromQL can say, and what it cannot is named."""
    exported = prometheus_rules([*RULES, *LEFT_OUT])
    assert [title for title, _ in exported.left_out] == [rule.title for rule in LEFT_OUT]
    for title, why in exported.left_out:
        assert f"# Left out: {title}: {why}\n" in exported.text
    file = tmp_path / "rules.yml"
    file.write_text(exported.text)
    promtool("check", "rules", file)


def series(name: str, labels: str, values: str) -> dict[str, str]:
    return {"series": f"{name}{{{labels}}}", "values": values}


def alert(name: str, at: str, severity: str | None = None, **labels: str) -> dict[str, Any]:
    expected = [] if severity is None else [{"exp_labels": {"severity": severity, **labels}}]
    return {"eval_time": at, "alertname": name, "exp_alerts": expected}


@pytest.mark.process
@pytest.mark.parametrize("form", ["classic"])
def test_the_alerts_fire_where_ours_do(tmp_path: Path, form: str) -> None:
    """Errors, money, durations, silence and burn rates, by values of series that promtool plays."""
    rules = [rule for rule in RULES if rule.name != "more errors"]
    exported = prometheus_rules(rules)
    body = json.loads(exported.text[exported.text.index("{") :])
    for group in body["groups"]:
        for each in group["rules"]:
            each.pop("annotations", None)
    (tmp_path / "rules.yml").write_text(json.dumps(body))
    duration = semconv.DURATION["released"].prometheus_name
    call = f'gen_ai_operation_name="chat", {MODEL}'
    # 60 calls a minute; after 20 minutes each tenth fails, after 40 none.
    good = f'{MODEL}, langmeter_outcome="ok"'
    bad = f'{MODEL}, langmeter_outcome="error"'
    inputs = [
        series(CALLS, good, "0+60x20 1254+54x20 2334+60x200 14334x400"),
        series(CALLS, bad, "0x20 6+6x20 126x200 126x400"),
        series(f"{duration}_count", call, "0+60x240"),
        series(f"{duration}_bucket", f'{call}, le="1"', "0+60x60 3600x180"),
        series(f"{duration}_bucket", f'{call}, le="4"', "0+60x240"),
        series(f"{duration}_bucket", f'{call}, le="+Inf"', "0+60x240"),
        series(f"{semconv.COST.prometheus_name}_total", MODEL, "0+0.1x60 6+0.5x180"),
    ]
    model = {"gen_ai_request_model": "gpt-4o"}
    provider = {"gen_ai_provider_name": "openai"}
    first = "burn_14_4_times_the_pace_of_30d"
    expected = [
        alert("errors", "15m"),
        alert("errors", "30m", "critical"),
        alert("errors", "50m"),
        alert("slow", "60m"),
        alert("slow", "70m", "warning", **model),
        alert("money", "60m"),
        alert("money", "100m", "warning", **model, **provider),
        alert("silence", "60m"),
        alert("silence", "300m", "warning"),
        alert(first, "15m"),
        alert("spend_14_4_times_the_pace_of_30d", "150m", "critical"),
    ]
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": inputs, "alert_rule_test": expected}],
    }
    (tmp_path / "test.yml").write_text(json.dumps(test))
    promtool("test", "rules", tmp_path / "test.yml")


def test_the_command_prints_the_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of --rule or of a file; what is left out is named on standard error, too."""
    assert main(["alerts", "export", "--rule", "cost > 1 per 1h", "--rule", "anomalies > 0"]) == 0
    answer = capsys.readouterr()
    assert answer.out.startswith("# 1 alert of langmeter, for Prometheus.\n# Left out: anomalies")
    assert "left out: anomalies > 0" in answer.err
    file = tmp_path / "langmeter.toml"
    file.write_text('[[langmeter.alerts]]\ntext = "cost > 1 per 1h"\nname = "dear"\n')
    written = tmp_path / "rules.yml"
    assert main(["alerts", "export", "--config", str(file), "-o", str(written)]) == 0
    assert '"alert": "dear"' in written.read_text()
    with pytest.raises(SystemExit):
        main(["alerts", "export", "--rule", "cost 1"])
    assert "'>' or '<' is missing" in capsys.readouterr().err
    file.write_text("[langmeter]\n")
    with pytest.raises(SystemExit):
        main(["alerts", "export", "--config", str(file)])
    assert "there are no rules" in capsys.readouterr().err

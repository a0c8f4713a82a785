"""Alerts of a meter: the same figures as its snapshots, sent to its sinks."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

from langmeter import Budget, ConfigError, Meter, MeterConfig
from langmeter.alerts import Alert, Rule
from tests.support.models import chat_model
from tests.support.webhooks import webhooks


def call(meter: Any, times: int = 1) -> None:
    model = chat_model()
    for _ in range(times):
        model.invoke("a text that alerts never have", config={"callbacks": [meter]})


def test_a_meter_alerts() -> None:
    """Once for what lasts; `flush` and `close` judge, too."""
    got: list[Alert] = []
    meter = Meter(alerts=["calls > 3 per 1h"], sinks=[got.append], alert_link="https://a.example")
    call(meter, 3)
    meter.flush()
    assert got == []
    call(meter, 1)
    assert meter.flush() is None
    meter.flush()
    (alert,) = got
    assert (alert.value, alert.link, alert.status) == (4, "https://a.example", "firing")
    assert [name for name, _, _ in meter.alerts.open] == ["calls > 3 per 1h"]
    assert "alerts never have" not in str(alert.to_dict())
    meter.close()
    call(meter, 1)
    assert len(got) == 1
    assert set(meter.alerts.dead_letters.values()) == {0}


def test_a_budget_is_read() -> None:
    """How much of it is spent, by its name."""
    got: list[Alert] = []
    meter = Meter(
        budgets=[Budget(calls=4, per="day", name="team-a")],
        alerts=["budget('team-a').used > 70%", "budget('other').used > 0"],
        sinks=got.append,
    )
    call(meter, 2)
    meter.flush()
    assert got == []
    call(meter, 1)
    meter.flush()
    assert [(alert.value, alert.labels) for alert in got] == [(0.75, {"budget": "team-a"})]


def test_other_sinks_hear_of_one_that_does_not_work() -> None:
    """As an alert of its own."""
    got: list[Alert] = []
    with webhooks() as receiver:
        receiver.statuses = [404]
        meter = Meter(alerts=["calls > 0 per 1h"], sinks=[receiver.url, got.append])
        call(meter)
        meter.flush(60)
        meter.flush(60)
        assert len(receiver.bodies) == 1
    assert [alert.name for alert in got] == ["calls > 0 per 1h", "a sink of alerts does not work"]
    assert "HTTP 404" in got[1].rule
    assert meter.snapshot().dropped["callback_errors"] == 1
    assert sum(meter.alerts.dead_letters.values()) == 1


def test_a_meter_is_freed() -> None:
    """Its alerts hold it in no circle."""
    meter = Meter(alerts=["calls > 3 per 1h"], sinks=["logging"])
    call(meter)
    freed = weakref.ref(meter)
    del meter
    gc.collect()
    assert freed() is None


@pytest.mark.process
def test_alerts_are_loaded_when_asked_for() -> None:
    """A meter without rules has none of it."""
    code = (
        "import sys\nfrom langmeter import Meter\nMeter()\n"
        "assert 'langmeter.alerts.engine' not in sys.modules\n"
        "assert 'langmeter.analysis' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match=r"alerts=\[…\]"):
        _ = Meter().alerts


@pytest.mark.process
def test_the_end_of_the_process_judges_and_sends(tmp_path: Path) -> None:
    """The alert of the last second is not lost."""
    with webhooks() as receiver:
        code = (
            "from langmeter import Meter\n"
            "from tests.alerts.test_monitor import call\n"
            f"meter = Meter(alerts=['calls > 0 per 1h'], sinks=[{receiver.url!r}])\n"
            "call(meter)\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)
        assert [alert["name"] for alert in receiver.alerts] == ["calls > 0 per 1h"]


FILE = """
[langmeter]
sinks = ["logging", "https://example.com/hook"]
alert_link = "https://example.com/board"

[[langmeter.alerts]]
text = "latency.p95 > 2s"
by = "model"
for_ = "2m"
severity = "critical"

[[langmeter.alerts]]
text = "cost > 10 per 1h"
"""


def test_rules_come_from_a_file(tmp_path: Path) -> None:
    """As a list of tables."""
    file = tmp_path / "langmeter.toml"
    file.write_text(FILE)
    config = MeterConfig.load(file, environ={})
    assert config.alerts == (
        Rule("latency.p95 > 2s", by="model", for_="2m", severity="critical"),
        Rule("cost > 10 per 1h"),
    )
    assert config.sinks == ("logging", "https://example.com/hook")
    file.write_text(FILE.replace("2s", "2x"))
    with pytest.raises(ConfigError, match=r"langmeter.toml:7: alerts\[0\].text .*at character 16"):
        MeterConfig.load(file, environ={})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alerts": "cost > 1"}, "alerts must be a list of rules"),
        ({"alerts": 5}, "alerts must be a list of rules"),
        ({"alerts": [5]}, r"alerts\[0\] must be a Rule"),
        ({"alerts": ["cost > 1", "cost > 1"]}, r"alerts\[1\] must be another name"),
        ({"sinks": 5}, "sinks must be a list of sinks"),
        ({"sinks": ["slack"]}, r"sinks\[0\] must be a function of one Alert"),
        ({"alert_link": "board"}, "alert_link must be an http or https address"),
    ],
)
def test_what_is_not_a_setting_is_refused(settings: dict[str, Any], message: str) -> None:
    """With the place of it."""
    with pytest.raises(ConfigError, match=message):
        MeterConfig(**settings)

"""The public API as a type checker sees it. Checked by `make lint`, never run.

`assert_type` fails where a type changes, `type: ignore` where an error is no longer one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from typing import Any, assert_type

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig

import langmeter
from langmeter import (
    Budget,
    BudgetExceeded,
    CompositeCallback,
    CostTrackingCallback,
    DefectAnalysisCallback,
    HealthOptions,
    Meter,
    MeterConfig,
    PerformanceCallback,
    PriceBook,
    ProviderManager,
    Snapshot,
    StreamingCallback,
    TokenCountingCallback,
    attach,
    sources,
)
from langmeter.alerts import Alert, Rule, Webhook, burn_rate
from langmeter.exporters import prometheus, rows
from langmeter.exporters.otlp import OtlpExporter
from langmeter.history import History, HistoryOptions, Row, Rows
from langmeter.runnables.attach import AttachedModel, Attachment
from langmeter.snapshot import CallStats, ComponentStats, LabelStats, ModelStats
from langmeter.testing import ManualClock
from langmeter.testing.simulator import Sent, Simulator


def meters() -> None:
    """Settings are keywords; views have their classes; a snapshot adds up."""
    meter = Meter(
        on_token_callback=print,
        prices=PriceBook({"openai/gpt-4o": {"input": 2.5, "output": Decimal(10)}}),
        budgets=[Budget(usd=5, per="day", action="block"), Budget(tokens=10, at=(0.5,))],
        labels=("team",),
        max_runs=1000,
    )
    Meter(config=MeterConfig(clock=ManualClock()))
    Meter(on_event="x")  # type: ignore[arg-type]
    Budget(usd=1, per="fortnight")  # type: ignore[arg-type]
    config: RunnableConfig = {"callbacks": [meter]}
    assert config
    assert_type(meter.tokens, TokenCountingCallback)
    assert_type(meter.cost, CostTrackingCallback)
    assert_type(meter.performance, PerformanceCallback)
    assert_type(meter.streaming, StreamingCallback)
    assert_type(meter.defects, DefectAnalysisCallback)
    CompositeCallback([meter.tokens, meter.cost])


def managers(model: BaseChatModel, meter: Meter) -> None:
    """Anything may be a manager; what was found is read only."""
    attached = attach({"nim": model}, meter, stream_usage=False)
    assert_type(attached, Attachment)
    assert_type(attached.providers, Mapping[str, tuple[AttachedModel, ...]])
    assert_type(attached.methods, tuple[str, ...])
    attach(model, "meter")  # type: ignore[arg-type]


def snapshots(one: Snapshot, two: Snapshot) -> None:
    """Figures by model and component, their sums, and the forms that they travel in."""
    assert_type(one + two, Snapshot)
    assert_type(two - one, Snapshot)
    assert_type(one.models, Mapping[tuple[str, str], ModelStats])
    assert_type(one.components, Mapping[tuple[str, str], ComponentStats])
    assert_type(one.totals.tokens.total, int)
    assert_type(one.totals.cost, Decimal | None)
    assert_type(one.dropped, Mapping[str, int])
    assert_type(one.labels, Mapping[tuple[str, str], LabelStats])
    assert_type(one.by("team"), Mapping[str, CallStats])
    assert_type(one.by("team", "model"), Mapping[tuple[str, ...], CallStats])
    Meter(labels=("team", ("team", "customer")))
    one.by(("team", "customer"))  # type: ignore[call-overload]
    assert_type(Snapshot.from_json(one.to_json()), Snapshot)
    assert_type(Snapshot.from_bytes(one.to_bytes()), Snapshot)


def exporters(meter: Meter) -> None:
    """Sources of every kind are exported; protocols and conventions are words."""
    with prometheus.start(0, meter, native_schema=5, token="t") as server:
        assert_type(server.url, str)
        assert_type(server.port, int)
    prometheus.asgi_app("metrics.db", conventions="latest")
    assert_type(prometheus.collector(meter.snapshot()), prometheus.SnapshotCollector)
    with OtlpExporter(meter, endpoint="http://localhost:4317", protocol="grpc") as exporter:
        assert_type(exporter.flush(), bool)
        assert_type(exporter.dropped, int)
    OtlpExporter(meter, protocol="udp")  # type: ignore[arg-type]
    prometheus.start(0, meter, conventions="newest")  # type: ignore[arg-type]
    assert_type(rows.rows(meter), list[dict[str, Any]])


def history() -> None:
    """Differences for a function, a database of them, and any source of snapshots."""
    meter = Meter(history=HistoryOptions(url="metrics.db", interval=10))
    end = meter.subscribe(60, lambda difference: assert_type(difference, Snapshot))
    assert_type(end(), None)
    meter.subscribe(60, lambda: None)  # type: ignore[arg-type,misc]
    assert_type(meter.flush(timeout=1), Snapshot | None)
    assert_type(meter.close(), Snapshot | None)
    rows = History("metrics.db").query("cost", by=("provider", "model"), since="7d", step="1h")
    assert_type(rows, Rows)
    assert_type(rows[0], Row)
    assert_type(rows[0].labels, Mapping[str, str])
    assert_type(rows[0].value, float)
    assert_type(langmeter.read("metrics.db", since="7d"), Snapshot)
    assert_type(langmeter.read(meter), Snapshot)
    assert_type(sources.open("snapshot.json"), sources.SnapshotSource)
    Meter(history=5)  # type: ignore[arg-type]


def alerts() -> None:
    """Rules, and what gets their alerts."""
    rules = [*burn_rate(objective="0.1%"), Rule("latency.p95 > 2s", by="model", for_="2m")]
    assert_type(burn_rate("cost", budget=300), list[Rule])

    def sink(alert: Alert) -> None:
        assert_type(alert.value, float)
        assert_type(alert.labels, Mapping[str, str])

    async def later(alert: Alert) -> None: ...

    meter = Meter(alerts=[*rules, "cost > 10 per 1h"], sinks=[sink, later, "logging"])
    Meter(alerts=rules, sinks=Webhook(url="https://example.com", secret="key"))
    assert_type(meter.alerts.dead_letters, Mapping[str, int])
    Meter(alerts=5)  # type: ignore[arg-type]
    Meter(sinks=5)  # type: ignore[arg-type]


def scopes() -> None:
    """A meter for everything, and one for a block."""
    assert_type(langmeter.install(labels=("team",)), Meter)
    assert_type(langmeter.uninstall(), Meter | None)
    with langmeter.track(max_runs=10) as meter:
        assert_type(meter, Meter)
        assert_type(meter.snapshot(), Snapshot)


async def streams(handler: StreamingCallback, model: BaseChatModel) -> None:
    """A wrapped model keeps the types of its input and output."""
    wrapped = langmeter.resume(model, max_restarts=3, on_restart="raise")
    assert_type(wrapped.invoke("hi"), AIMessage)
    chunks: AsyncIterator[Any] = wrapped.astream("hi")
    async for chunk in chunks:
        assert_type(langmeter.restart_of(chunk), langmeter.Restart | None)
    manager = ProviderManager({"a": model}, policy={"a": 1.0}, health=HealthOptions(failures=3))
    ProviderManager({"a": model}, policy=lambda snapshot, names: names[0], on_budget="cheaper")
    ProviderManager({"a": model}, on_budget="go")  # type: ignore[arg-type]
    assert_type(manager.decisions, Mapping[tuple[str, str], int])
    assert_type(manager.preview("x").order, tuple[str, ...])
    assert_type(manager.bind_tools([]), ProviderManager)
    langmeter.resume(model, on_restart="shrug")  # type: ignore[arg-type]


def embeddings(model: Embeddings, meter: Meter) -> None:
    """A tracked model is a model."""
    assert_type(langmeter.track_embeddings(model, meter), Embeddings)


def errors() -> None:
    """The one exception that reaches a chain names the budget that refused the call."""
    try:
        raise NotImplementedError
    except BudgetExceeded as error:
        assert_type(error.budget, str)


def simulators() -> None:
    """The truth of a simulator is typed."""
    with Simulator(seed=1, speed=20) as service:
        assert_type(service.truth().sent("ok"), Sent)
        assert_type(service.url, str)

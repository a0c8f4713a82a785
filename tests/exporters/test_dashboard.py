"""The dashboard: Grafana's form, and the command; `make e2e` runs its queries."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from langmeter.cli.main import main
from langmeter.exporters import prometheus
from langmeter.exporters.dashboard import dashboard, queries
from langmeter.exporters.semconv import GENERATIONS
from tests.support.traffic import Traffic

ROOT = Path(__file__).parents[2]


def test_the_published_dashboard_is_that_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`langmeter dashboard -o docs/reference/grafana.json` writes it anew."""
    published = (ROOT / "docs/reference/grafana.json").read_text(encoding="utf-8")
    assert main(["dashboard"]) == 0
    assert capsys.readouterr().out == published
    path = tmp_path / "board.json"
    assert main(["dashboard", "-o", str(path)]) == 0
    assert path.read_text(encoding="utf-8") == published
    assert main(["dashboard", "-o", str(tmp_path)]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_panels_have_places_and_queries() -> None:
    """Ids are unique, no two panels overlap, and each query of a panel has a letter of its own."""
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 20
    squares: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not own & squares
        assert place["x"] + place["w"] <= 24
        squares |= own
        letters = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(letters)) == len(letters)
        assert panel["type"] == "row" or letters
    json.dumps(dashboard())


def test_every_metric_of_a_query_is_exported() -> None:
    """No name in a query is of a metric that neither generation of the conventions has."""
    snapshot = Traffic().everything().snapshot()
    names = {
        sample.name
        for generation in GENERATIONS
        for metric in prometheus.collector(snapshot, conventions=generation).collect()
        for sample in metric.samples
    }
    names |= {name.removesuffix("_bucket") for name in names}
    asked = {
        name
        for _, query in queries(dashboard())
        for name in re.findall(r"((?:gen_ai|langmeter)_\w+)\{", query)
    }
    assert len(asked) > 25
    assert asked <= names

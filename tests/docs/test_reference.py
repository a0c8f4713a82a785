"""The reference has every name that the code has."""

from __future__ import annotations

import re

import pytest

import langmeter
from langmeter import _core
from tests.support.pages import ROOT


def _page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf8")


def _dropped_names() -> list[str]:
    """Names of what a recorder drops, from the Rust source that defines them."""
    for path in (ROOT / "rust/core/src").glob("*.rs"):
        block = re.search(r"^    Dropped \{\n(.*?)^    \}", path.read_text(), re.S | re.M)
        if block:
            return re.findall(r'= "(\w+)"', block[1])
    return []


def test_every_name_in_dropped_is_explained() -> None:
    """The guide has a row for each name that `snapshot.dropped` can have."""
    names = _dropped_names()
    assert len(names) > 20
    page = _page("guides/dropped.md")
    assert [name for name in names if f"`{name}`" not in page] == []


def test_every_field_of_a_series_in_the_json_has_its_unit() -> None:
    """The page names each counter and each distribution."""
    page = _page("reference/json.md")
    names = {*_core.COUNTERS, *_core.MEASURES, *_core.OUTCOMES}
    assert sorted(name for name in names if f"`{name}`" not in page) == []


@pytest.mark.parametrize("name", sorted({*langmeter.__all__} - {"__version__"}))
def test_the_api_reference_has_every_public_name(name: str) -> None:
    """Each name of the package is documented there; errors as members of their module."""
    module = getattr(langmeter, name).__module__
    page = _page("reference/api.md")
    assert f"langmeter.{name}\n" in page or f".{name}\n" in page or f":: {module}\n" in page

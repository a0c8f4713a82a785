"""For pytest: the fixture `langmeter_baseline`, a project's own figures kept in its repository.

pytest loads this module in every run of every project where langmeter is installed, so it imports
nothing of langmeter before a test asks for the fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from langmeter.testing.baselines import Baselines

_FOLDER = "langmeter-baselines"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options and the setting."""
    group = parser.getgroup("langmeter")
    group.addoption(
        "--langmeter-update",
        action="store_true",
        help="write the baselines of langmeter_baseline anew instead of comparing with them",
    )
    group.addoption(
        "--langmeter-baselines",
        metavar="DIR",
        help="where they are kept, from the root of the project; overrides the setting",
    )
    parser.addini(
        "langmeter_baselines",
        f"where baselines of langmeter_baseline are kept, from the root ({_FOLDER})",
        default=_FOLDER,
    )


@pytest.fixture(scope="session")
def langmeter_baseline(pytestconfig: pytest.Config) -> Baselines:
    """Baselines kept in the repository: `langmeter_baseline.check(meter, "name", fail_on=[…])`."""
    from langmeter.testing.baselines import Baselines

    folder = pytestconfig.getoption("langmeter_baselines")
    if folder is None:
        folder = pytestconfig.getini("langmeter_baselines")
    return Baselines(
        pytestconfig.rootpath / folder, update=pytestconfig.getoption("langmeter_update")
    )

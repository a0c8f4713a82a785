"""The ground truth: exactly what the simulated service sent, to hold a meter's figures against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

#: How a request can end, seen from the service. "unreported" is a whole stream whose client did not
#: ask for usage, "invalid" a request refused with 400.
OUTCOMES: Final = (
    "ok",
    "unreported",
    "rate_limited",
    "server_error",
    "broken",
    "disconnected",
    "invalid",
)


class Sent(NamedTuple):
    """Calls and their tokens: cache_read is a part of input, reasoning of output."""

    calls: int = 0
    input: int = 0
    output: int = 0
    cache_read: int = 0
    reasoning: int = 0


def total(rows: Iterable[Sent]) -> Sent:
    """The sum of any number of rows, none included."""
    columns = tuple(zip(*rows, strict=True))
    return Sent(*map(sum, columns))


@dataclass(frozen=True, slots=True)
class Truth:
    """What was sent, by dated model name and outcome; pairs that never happened are absent.

    The tokens of "ok" are those that the usage in a whole reply told the client; of "unreported",
    what that usage would have told; of "broken" and "disconnected", the prompt and the visible
    tokens that went out.
    """

    models: Mapping[str, Mapping[str, Sent]]

    def sent(self, *outcomes: str, model: str | None = None) -> Sent:
        """The sum over `outcomes` (none named: all) and all models, or one by its dated name."""
        return total(
            row
            for name, rows in self.models.items()
            for outcome, row in rows.items()
            if (model is None or name == model) and (not outcomes or outcome in outcomes)
        )

    def to_dict(self) -> dict[str, dict[str, dict[str, int]]]:
        """Plain data: model → outcome → field → number."""
        return {
            model: {outcome: row._asdict() for outcome, row in rows.items()}
            for model, rows in self.models.items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Truth:
        """The inverse of `to_dict`."""
        return cls({m: {o: Sent(**row) for o, row in rows.items()} for m, rows in data.items()})


class Books:
    """The books as they are written, by one thread."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Sent]] = {}

    def write(self, model: str, outcome: str, sent: Sent = Sent(1)) -> None:  # noqa: B008 - immutable
        """Add one row."""
        rows = self._rows.setdefault(model, {})
        rows[outcome] = total((rows.get(outcome, Sent()), sent))

    def truth(self) -> Truth:
        """A copy of what is written."""
        return Truth({model: dict(rows) for model, rows in self._rows.items()})

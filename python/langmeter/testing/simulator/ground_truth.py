"""The ground truth: exactly what the simulator sent, to compare a meter's figures with."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

#: How a request can end for the service. "unreported" is a complete stream whose client did not
#: request usage; "invalid" is a request refused with a status of 4xx other than 429.
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
    """Number of calls and their tokens. `input` includes `cache_read`, `output` `reasoning`."""

    calls: int = 0
    input: int = 0
    output: int = 0
    cache_read: int = 0
    reasoning: int = 0


def total(rows: Iterable[Sent]) -> Sent:
    """Return the sum of the rows; all zeros if there are none."""
    columns = tuple(zip(*rows, strict=True))
    return Sent(*map(sum, columns))


@dataclass(frozen=True, slots=True)
class Truth:
    """Counts of what was sent, by dated model name and outcome; other pairs are absent.

    The tokens of "ok" are those in the usage of complete replies; of "unreported", those that the
    usage would have had; of "broken" and "disconnected", the prompt and the pieces that were sent.
    """

    models: Mapping[str, Mapping[str, Sent]]

    def sent(self, *outcomes: str, model: str | None = None) -> Sent:
        """Return the sum over outcomes and models.

        Args:
            *outcomes: names of `OUTCOMES`; all if none is given.
            model: the dated name of one model; None for all models.
        """
        return total(
            row
            for name, rows in self.models.items()
            for outcome, row in rows.items()
            if (model is None or name == model) and (not outcomes or outcome in outcomes)
        )

    def to_dict(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return plain data: model → outcome → field → number."""
        return {
            model: {outcome: row._asdict() for outcome, row in rows.items()}
            for model, rows in self.models.items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Truth:
        """Return the truth that `to_dict` turned into plain data."""
        return cls({m: {o: Sent(**row) for o, row in rows.items()} for m, rows in data.items()})


class Tally:
    """Running counts behind a `Truth`; the service adds to it while other threads read it."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Sent]] = {}
        self._lock = threading.Lock()

    def add(self, model: str, outcome: str, sent: Sent = Sent(1)) -> None:  # noqa: B008 - immutable
        """Add one row."""
        with self._lock:
            rows = self._rows.setdefault(model, {})
            rows[outcome] = total((rows.get(outcome, Sent()), sent))

    def truth(self) -> Truth:
        """Return a copy of the counts so far."""
        with self._lock:
            return Truth({model: dict(rows) for model, rows in self._rows.items()})

"""Verdicts in what runs return: the function of the user that reads them, held at a distance."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from langmeter.defects.attempt import apply
from langmeter.defects.outcome import fix_of

if TYPE_CHECKING:
    from langmeter.callbacks.services import Services


class OutputReader:
    """Reads the verdict on an attempt from what its run returned; holds the services weakly."""

    services: Callable[[], Services | None]

    def __init__(self, outcome: Callable[[Any], Any] | None) -> None:
        self._outcome = outcome
        self.read = None if outcome is None else self._read

    def _read(self, number: int, output: Any) -> None:
        services = self.services()
        if services is None or self._outcome is None:
            return
        try:
            apply(services, number, fix_of(self._outcome(_returned(output))))
        except Exception as exc:
            services.recorder.dropped("callback_errors")
            services.output_failed(exc)


def _returned(output: Any) -> Any:
    """Return what the caller of a run gets; a model call ends with its message, or its text."""
    match getattr(output, "generations", None):
        case [[first, *_], *_]:
            return getattr(first, "message", first.text)
    return output

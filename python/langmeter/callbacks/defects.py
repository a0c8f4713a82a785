"""Fixes that models make: attempts at defects, and the verdicts on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from uuid import UUID

from langmeter._base.failures import ERROR
from langmeter.callbacks.base import FIX
from langmeter.callbacks.components import ComponentCallback
from langmeter.callbacks.model_end import OK
from langmeter.callbacks.views import DefectView
from langmeter.config import MeterConfig
from langmeter.defects import receipt
from langmeter.defects.attempt import Attempt, apply, judge, number_around
from langmeter.defects.options import DefectOptions
from langmeter.defects.outcome import Fix, fix_of
from langmeter.snapshot import Snapshot

#: Name of the custom event that `dispatch_custom_event` sends.
EVENT = "langmeter.fix"


class DefectAnalysisCallback(ComponentCallback, DefectView):
    """Counts attempts to fix defects: their outcomes, their calls, their price.

    `with meter.defects.attempt("CID-1042", type="NULL_DEREF") as attempt:` opens one; runs whose
    metadata has `defect_id` open one too. `attempt.succeeded()` and `meter.defects.record(id,
    "fixed")` give verdicts. Figures are in `snapshot().defects`.

    `record_fix(True, kind="syntax")`, or from inside of a runnable that has it among its callbacks
    `dispatch_custom_event("langmeter.fix", {"success": True, "kind": "syntax"})`, counts a fix that
    belongs to no attempt.

    Each property takes a whole snapshot; `of(snapshot)` reads several of one moment.
    """

    ignore_custom_event = False

    def __init__(
        self,
        options: DefectOptions | None = None,
        *,
        config: MeterConfig | None = None,
        **settings: Any,
    ) -> None:
        config = MeterConfig.chosen(config, {**settings, "defects": options}, "defects")
        options = config.defects if isinstance(config.defects, DefectOptions) else DefectOptions()
        super().__init__({"defects": options}, config=config)

    @staticmethod
    def of(snapshot: Snapshot) -> DefectView:
        """Return the same figures of a snapshot: `meter.defects.of(snapshot)`."""
        return DefectView(snapshot)

    # --- attempts --------------------------------------------------------------------------------

    def attempt(
        self,
        defect_id: str,
        *,
        type: str = "",  # as the metadata calls it
        severity: str = "",
        language: str = "",
        number: int | None = None,
        strategy: str = "",
    ) -> Attempt:
        """Return an attempt to fix a defect; it begins with its block, sync or async.

        Args:
            defect_id: id of the defect, told from others by its first 1,024 characters; only a
                hash of it leaves the process, in receipts.
            type: type of the defect, at most 64 characters, as of the texts that follow;
                `snapshot().defects` has rows by it.
            severity: severity of the defect, also in those rows.
            language: language of the code; `snapshot().defect_strategies` has rows by it.
            strategy: strategy of the fix, also in those rows.
            number: which attempt at this defect it is, from 1; None for the next one of this
                recorder.

        Raises:
            ConfigError: a text that is not one, or a number below 1.
        """
        about = {"type": type, "severity": severity, "language": language, "strategy": strategy}
        return Attempt(self._services, defect_id, number=number, **about)

    def record(
        self,
        id_or_receipt: str,
        outcome: str,
        *,
        score: float | None = None,
        source: str = "caller",
    ) -> bool:
        """Record a verdict on an attempt that has ended, or goes on; returns whether it counts.

        The verdict of the strongest source counts, of equals the newest; the same verdict again
        changes nothing. One on an attempt that is not among the last 65,536 is counted in
        `snapshot().dropped["verdicts_unknown"]`.

        Args:
            id_or_receipt: `attempt.id` in the process of the attempt, `attempt.receipt` in any.
            outcome: one of `langmeter.defects.OUTCOMES`.
            score: quality from 0 to 1; None if unknown.
            source: reviewer, re-scan, tests, caller, compile, form, or a text of your own, which
                ranks as caller.

        Raises:
            ConfigError: an outcome or a score outside of its range, or a damaged receipt.
        """
        if not isinstance(id_or_receipt, str):
            raise TypeError(
                f"id_or_receipt must be attempt.id or attempt.receipt, got {id_or_receipt!r}"
            )
        attempts = self._services.attempts
        if receipt.is_receipt(id_or_receipt):
            number = attempts.adopt(receipt.read(id_or_receipt))
        else:
            number = attempts.number(id_or_receipt) or 0
        return judge(self._services, number, outcome, score, source)

    @property
    def failure_reasons(self) -> Mapping[tuple[str, str], int]:
        """`(outcome, reason)` of `attempt.failed(reason=…)` to how often it was given.

        Counted in this process, 256 of them at most; in no snapshot and never exported.
        """
        return MappingProxyType(dict(self._services.reasons))

    # --- fixes without an attempt ----------------------------------------------------------------

    def record_fix(
        self, success: bool, kind: str = "fix", *, duration: float | None = None
    ) -> None:
        """Count one fix; `duration` in seconds.

        Raises TypeError when `success` is not a bool or `kind` not a string, ValueError when
        `duration` is negative or not finite.
        """
        if not isinstance(success, bool):
            raise TypeError(f"success = {success!r}: must be True or False")
        if not isinstance(kind, str):
            raise TypeError(f"kind = {kind!r}: must be a string")
        if duration is not None and not (math.isfinite(duration) and duration >= 0):
            raise ValueError(f"duration = {duration!r}: must be seconds, 0 or more")
        nanos = None if duration is None else round(duration * 1e9)
        self._recorder.count(FIX, kind, OK if success else ERROR, nanos)

    def on_custom_event(
        self,
        name: str,
        data: Any,
        *,
        run_id: UUID | None = None,
        tags: Any = None,
        metadata: Any = None,
        **kwargs: Any,
    ) -> None:
        """Take a verdict on the attempt around it, or count a fix; ignores other events."""
        if name != EVENT:
            return
        try:
            services = self._services
            number = number_around(services, run_id)
            if number is None:
                self.record_fix(
                    data["success"], data.get("kind", "fix"), duration=data.get("duration")
                )
                return
            fix = fix_of(data.get("outcome", data.get("success")))
            source = data.get("source", "caller")
            apply(services, number, Fix(fix.outcome, data.get("score"), source=source))
        except BaseException as exc:
            self._failed("on_custom_event", exc)

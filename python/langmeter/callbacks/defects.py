"""Fixes that a model made: how many worked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from uuid import UUID

from langmeter._base.failures import ERROR
from langmeter.callbacks.base import FIX, Callback
from langmeter.callbacks.model_end import OK
from langmeter.snapshot import ComponentStats

#: Name of the custom event that `dispatch_custom_event` sends.
EVENT = "langmeter.fix"


class DefectAnalysisCallback(Callback):
    """Counts fixes that worked and fixes that did not, by kind.

    Tell it directly, `record_fix(True, kind="syntax")`, or from inside a runnable that has it among
    its callbacks: `dispatch_custom_event("langmeter.fix", {"success": True, "kind": "syntax"})`.
    """

    ignore_llm = True
    ignore_chat_model = True
    ignore_chain = True
    ignore_custom_event = False

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
        """Count a fix; events of other names are ignored."""
        if name != EVENT:
            return
        try:
            self.record_fix(data["success"], data.get("kind", "fix"), duration=data.get("duration"))
        except BaseException as exc:
            self._failed("on_custom_event", exc)

    @property
    def success_rate(self) -> float:
        """Share of fixes that worked, 0 to 1; nan before the first."""
        ok = sum(stats.outcomes["ok"] for stats in self.fixes.values())
        calls = ok + sum(stats.errors for stats in self.fixes.values())
        return ok / calls if calls else float("nan")

    @property
    def fixes(self) -> Mapping[str, ComponentStats]:
        """Figures by kind of fix."""
        components = self.snapshot().components.items()
        return MappingProxyType(
            {name: stats for (kind, name), stats in components if kind == "fix"}
        )

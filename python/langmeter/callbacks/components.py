"""Chains, tools and retrievers, counted beside model calls."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from langmeter import _core
from langmeter._base.failures import INTERRUPTED, cause_of, outcome_of
from langmeter.callbacks.base import CHAIN, RETRIEVER, TOOL, Callback


class ComponentCallback(Callback):
    """Counts chains, tools and retrievers beside model calls.

    Also tells sooner what became of a model call that nobody ended: the end of an ancestor does.
    """

    ignore_chain = False
    ignore_agent = False
    ignore_retriever = False

    # Native, without a Python frame; tests hold that their signatures are LangChain's.
    on_chain_start = _core.Handler._chain_started
    on_chain_end = _core.Handler._chain_ended
    on_tool_start = _core.Handler._tool_started
    on_tool_end = _core.Handler._tool_ended
    on_retriever_start = _core.Handler._retriever_started
    on_retriever_end = _core.Handler._retriever_ended

    def on_chain_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: Any = None,
        **kwargs: Any,
    ) -> None:
        """A chain failed, was given up, or handed control back to its graph."""
        self._ended("on_chain_error", run_id, CHAIN, error)

    def on_tool_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: Any = None,
        **kwargs: Any,
    ) -> None:
        """A tool failed."""
        self._ended("on_tool_error", run_id, TOOL, error)

    def on_retriever_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: Any = None,
        **kwargs: Any,
    ) -> None:
        """A retriever failed."""
        self._ended("on_retriever_error", run_id, RETRIEVER, error)

    def _ended(self, where: str, run_id: UUID, kind: int, error: BaseException) -> None:
        try:
            recorder, outcome = self._bound() or self._recorder, outcome_of(error)
            cause = None if outcome == INTERRUPTED else cause_of(error)
            if kind == CHAIN and recorder.requested(run_id):  # a decision model
                self._model_ended(run_id, outcome, None, error=error)
            else:
                recorder.run_ended(run_id, kind, outcome, error=cause)
        except BaseException as exc:
            self._failed(where, exc)

"""Chains, tools and retrievers, counted beside model calls."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from langchain_core.messages import ToolMessage

from langmeter.callbacks.base import (
    CHAIN,
    ERROR,
    OK,
    RETRIEVER,
    TOOL,
    Callback,
    component_name,
    outcome_of,
)


class ComponentCallback(Callback):
    """Counts chains, tools and retrievers beside model calls.

    Also tells sooner what became of a model call that nobody ended: the end of an ancestor does.
    """

    ignore_chain = False
    ignore_agent = False
    ignore_retriever = False

    def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: Any = None,
        metadata: Any = None,
        run_type: Any = None,
        name: Any = None,
        **kwargs: Any,
    ) -> None:
        """A chain begins, which for a decision model is a model call."""
        if run_type == "llm":
            super().on_chain_start(
                serialized,
                inputs,
                run_id=run_id,
                parent_run_id=parent_run_id,
                metadata=metadata,
                run_type=run_type,
                name=name,
            )
            return
        try:
            (self._bound() or self._recorder).run_started(
                run_id, parent_run_id, CHAIN, component_name(name, serialized, "chain")
            )
        except BaseException as exc:
            self._failed("on_chain_start", exc)

    def on_chain_end(
        self,
        outputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: Any = None,
        **kwargs: Any,
    ) -> None:
        """A chain gave its result."""
        try:
            if type(outputs).__name__ == "ClassifierResponse":
                self._model_ended(run_id, OK, outputs, CHAIN)
            else:
                (self._bound() or self._recorder).run_ended(run_id, CHAIN, OK)
        except BaseException as exc:
            self._failed("on_chain_end", exc)

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

    def on_tool_start(
        self,
        serialized: Any,
        input_str: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: Any = None,
        metadata: Any = None,
        inputs: Any = None,
        name: Any = None,
        **kwargs: Any,
    ) -> None:
        """A tool begins."""
        try:
            (self._bound() or self._recorder).run_started(
                run_id, parent_run_id, TOOL, component_name(name, serialized, "tool")
            )
        except BaseException as exc:
            self._failed("on_tool_start", exc)

    def on_tool_end(
        self,
        output: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: Any = None,
        **kwargs: Any,
    ) -> None:
        """A tool ended; one whose error was handled says so in its message."""
        try:
            handled = isinstance(output, ToolMessage) and output.status == "error"
            (self._bound() or self._recorder).run_ended(run_id, TOOL, ERROR if handled else OK)
        except BaseException as exc:
            self._failed("on_tool_end", exc)

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

    def on_retriever_start(
        self,
        serialized: Any,
        query: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: Any = None,
        metadata: Any = None,
        name: Any = None,
        **kwargs: Any,
    ) -> None:
        """A retriever begins."""
        try:
            (self._bound() or self._recorder).run_started(
                run_id, parent_run_id, RETRIEVER, component_name(name, serialized, "retriever")
            )
        except BaseException as exc:
            self._failed("on_retriever_start", exc)

    def on_retriever_end(
        self,
        documents: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: Any = None,
        **kwargs: Any,
    ) -> None:
        """A retriever gave its documents."""
        try:
            (self._bound() or self._recorder).run_ended(run_id, RETRIEVER, OK)
        except BaseException as exc:
            self._failed("on_retriever_end", exc)

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
            (self._bound() or self._recorder).run_ended(run_id, kind, outcome_of(error))
        except BaseException as exc:
            self._failed(where, exc)

"""Chains, tools and retrievers, counted beside model calls."""

from __future__ import annotations

from langmeter.callbacks.base import Callback


class ComponentCallback(Callback):
    """Counts chains, tools and retrievers beside model calls.

    Also detects abandoned model calls sooner: the end of an ancestor ends them.
    """

    ignore_chain = False
    ignore_agent = False
    ignore_retriever = False
    _components = True

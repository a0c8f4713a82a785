"""Chains, tools and retrievers, counted beside model calls."""

from __future__ import annotations

from langmeter.callbacks.base import Callback


class ComponentCallback(Callback):
    """Counts chains, tools and retrievers beside model calls.

    Also tells sooner what became of a model call that nobody ended: the end of an ancestor does.
    """

    ignore_chain = False
    ignore_agent = False
    ignore_retriever = False
    _components = True

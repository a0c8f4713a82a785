"""What streams say, as they say it and whole, and who is told of it how."""

from langmeter._base.delivery import Queued
from langmeter.streaming.events import StreamEvent, StreamFailure, StreamResult, ToolCall
from langmeter.streaming.iterator import EventIterator
from langmeter.streaming.streams import Collect, Streams

__all__ = [
    "Collect",
    "EventIterator",
    "Queued",
    "StreamEvent",
    "StreamFailure",
    "StreamResult",
    "Streams",
    "ToolCall",
]

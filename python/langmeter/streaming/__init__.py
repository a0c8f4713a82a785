"""Contents of streams, piece by piece and whole, and their listeners."""

from langmeter._base.delivery import Queued
from langmeter.streaming.events import StreamEvent, StreamFailure, StreamResult, ToolCall
from langmeter.streaming.iterator import EventIterator
from langmeter.streaming.options import Collect, Delivery, StreamOptions
from langmeter.streaming.streams import Streams

__all__ = [
    "Collect",
    "Delivery",
    "EventIterator",
    "Queued",
    "StreamEvent",
    "StreamFailure",
    "StreamOptions",
    "StreamResult",
    "Streams",
    "ToolCall",
]

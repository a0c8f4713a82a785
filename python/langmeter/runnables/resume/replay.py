"""Joins an answer that broke off to its replay: hands on what is new to the caller. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Final, NamedTuple

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk

from langmeter.errors import StreamDiverged, StreamTruncated

#: Where a marker keeps its figures. A list, because LangChain sums the numbers of equal keys when
#: chunks are added up, and appends to lists.
_RESTARTS: Final = "langmeter_restarts"
#: A model's word for why its answer is over. `chunk_position` is none: LangChain sets it at the end
#: of every stream, also of one that was cut.
_FINISHED: Final = ("finish_reason", "stop_reason", "stopReason", "done_reason", "status")
#: Say where a block belongs, and stay with whatever is left of it.
_LABELS: Final = frozenset({"type", "index"})
#: Say how a chunk is to be read, and stay with whatever is left of it; LangChain joins equal ones.
_READING: Final = frozenset({"model_provider", "output_version"})
#: Made anew by the provider each time: never compared, and given once, as LangChain joins strings.
_OPAQUE: Final = frozenset({"id", "signature", "thought_signature", "encrypted_content"})
#: Blocks whose text the next one continues, also where they carry no index.
_RUNNING: Final = frozenset({"text", "thinking", "reasoning"})
_DERIVED: Final = frozenset({"type", "tool_calls", "invalid_tool_calls"})

_NOTHING: Final = object()
_Path = tuple[Hashable, ...]


class Restart(NamedTuple):
    """A new answer begins: what came before it is to be thrown away."""

    #: Number of the attempt that gives it; the first attempt, which broke, was 1.
    attempt: int
    #: Length of the visible text that came before.
    discarded_characters: int


class _Mark(str):
    """The marker in a stream of str: empty, so whoever does not look for it sees nothing."""

    restart: Restart


def restart_of(chunk: Any) -> Restart | None:
    """Return what a chunk of a resumed stream says about a restart; None if it is not a marker.

    Of a sum of chunks, it is the last restart among them.
    """
    if isinstance(chunk, str):
        return getattr(chunk, "restart", None)
    data = (getattr(chunk, "response_metadata", None) or {}).get(_RESTARTS)
    return Restart(**data[-1]) if data else None


class _Cursor:
    """Text delivered for one field of an answer, and how much of it a replay has repeated."""

    __slots__ = ("at", "given", "parts")

    def __init__(self, empty: Any) -> None:
        self.given = empty  # a str of characters or a list of items: given before this attempt
        self.parts: list[Any] = []  # since
        self.at = 0

    def rewind(self) -> None:
        empty = self.given[:0]
        self.given += empty.join(self.parts) if isinstance(empty, str) else sum(self.parts, empty)
        self.parts, self.at = [], 0


class _Diverged(Exception):  # noqa: N818 (never leaves this room)
    pass


class ReplayMerger:
    """The chunks that one caller was given over all attempts at one answer.

    Answers are compared place by place: the text, the reasoning, the name and arguments of each
    tool call, each content block. Where chunks begin and end makes no difference.

    Holds the text that was given, and, while a replay only repeats it, the replay's chunks.
    """

    def __init__(self, *, signal: bool, require_finish: bool) -> None:
        self._signal, self._require_finish = signal, require_finish
        self.attempt = 0
        #: Whether any attempt gave a chunk.
        self.begun = False
        self._finished = False
        self._restart: Restart | None = None
        self._forget()

    def _forget(self) -> None:
        """A new answer: nothing of it was given yet."""
        self._cursors: dict[_Path, _Cursor] = {}
        #: The tapes that the replay has not yet said again in full.
        self._unreplayed: set[_Path] = set()
        #: Places of opaque and scalar values given in this attempt, and before it.
        self._once: set[_Path] = set()
        self._before: set[_Path] = set()
        self._given_usage: dict[str, Any] = {}
        self._owed_usage: dict[str, Any] = {}
        self._id: str | None = None
        self._resumed = self._fresh = False
        self._shown = 0
        self._withheld: list[Any] = []  # the replay so far, should it turn out to be another answer
        self._late: list[Any] = []  # what is new in it without being text

    def begin(self) -> None:
        """A new attempt begins; after the first it is a replay of what was given."""
        self.attempt += 1
        self._finished = False
        if not self._unreplayed:  # else nothing of the last attempt was given
            self._before |= self._once
            for cursor in self._cursors.values():
                cursor.rewind()
        for cursor in self._cursors.values():
            cursor.at = 0
        self._unreplayed = {path for path, cursor in self._cursors.items() if cursor.given}
        self._once, self._withheld, self._late = set(), [], []
        self._owed_usage = _sum({}, self._given_usage, -1)
        self._resumed = self.begun
        self._shown = sum(len(t.given) for path, t in self._cursors.items() if _visible(path))

    def take(self, chunk: Any) -> list[Any]:
        """Return the chunks to hand on after this chunk of an attempt.

        Raises:
            TypeError: the chunk is neither a str nor an AIMessageChunk.
            StreamDiverged: it belongs to another answer, and that is not to be signalled.
        """
        if not isinstance(chunk, str | AIMessage):
            raise TypeError(
                f"resume() joins streams of str and of AIMessageChunk, not of "
                f"{type(chunk).__name__}; put it around the model, before what parses its answer"
            )
        self.begun = True
        if self._require_finish:
            chunk = self._watched(chunk)
        try:
            rest = self._rest_of(chunk)
        except _Diverged:
            return self._diverged([*self._withheld, chunk])
        if self._unreplayed:
            self._withheld.append(chunk)
            self._late += rest
            return []
        out = self._late + rest
        self._withheld, self._late = [], []
        return out

    def end(self) -> list[Any]:
        """Return the chunks to hand on after an attempt ended without an error.

        Raises:
            StreamDiverged: its answer is shorter, and that is not to be signalled.
        """
        return self._diverged(self._withheld) if self._unreplayed else []

    def pop_restart(self) -> dict[str, Any] | None:
        """Return the event data of a new answer once; None if there is none."""
        restart, self._restart = self._restart, None
        return restart and restart._asdict()

    def check(self) -> None:
        """Ask, at the end of an attempt, whether its model came to an end as well.

        Raises:
            StreamTruncated: it was to say so, and did not.
        """
        if self._require_finish and not self._finished:
            raise StreamTruncated(self.attempt)

    def _watched(self, chunk: Any) -> Any:
        if isinstance(chunk, str):
            raise TypeError(
                "require_finish = True: a stream of str has no finish reason; leave it out, "
                "or put resume() around the chat model, before what parses its answer"
            )
        whole = not isinstance(chunk, AIMessageChunk)
        if whole or any(chunk.response_metadata.get(name) for name in _FINISHED):
            self._finished = True
        elif not self._finished and chunk.chunk_position == "last":
            return chunk.model_copy(update={"chunk_position": None})
        return chunk

    def _diverged(self, chunks: list[Any]) -> list[Any]:
        restart = self._restart = Restart(self.attempt, self._shown)
        if not self._signal:
            raise StreamDiverged(*restart)
        text = isinstance(chunks[-1], str) if chunks else () in self._cursors
        mark: Any = _Mark() if text else AIMessageChunk(content="")
        if text:
            mark.restart = restart
        else:
            mark.response_metadata[_RESTARTS] = [restart._asdict()]
            mark.id = chunks[-1].id if chunks else None
        self._forget()
        for chunk in chunks:
            self._rest_of(chunk)
        return [mark, *chunks]

    def _rest_of(self, chunk: Any) -> list[Any]:
        """The chunk without what was given, or nothing. Raises _Diverged."""
        self._fresh = False
        rest: list[Any]
        if isinstance(chunk, str):
            new = self._new((), chunk)
            rest = ([new] if new else []) if self._resumed else [chunk]
        elif isinstance(chunk, AIMessageChunk):
            rest = [*self._rest_of_message(chunk)]
        else:  # whole, from a model that does not stream
            said = {"content": chunk.content, "tool_calls": chunk.tool_calls}
            rest = [chunk] if self._new(("message",), [_comparable(said)]) else []
        if self._fresh and self._unreplayed:
            # It goes on with one thing before it is done with another.
            raise _Diverged
        return rest

    def _rest_of_message(self, chunk: AIMessageChunk) -> list[AIMessageChunk]:
        content = self._rest(("content",), chunk.content)
        extra = self._rest(("additional_kwargs",), chunk.additional_kwargs)
        calls = self._rest(("tool_call_chunks",), chunk.tool_call_chunks)
        metadata = self._metadata(chunk.response_metadata)
        usage = self._usage(chunk.usage_metadata)
        if not self._resumed:
            self._id = self._id or chunk.id
            return [chunk]
        if not (content or extra or calls or metadata or usage or chunk.chunk_position):
            return []
        same = {k: v for k, v in chunk.response_metadata.items() if k in _READING}
        fields = {name: value for name, value in chunk if name not in _DERIVED}
        fields |= {
            "content": content or type(chunk.content)(),
            "additional_kwargs": extra or {},
            "response_metadata": {**same, **metadata},
            "usage_metadata": usage,
            "tool_call_chunks": [
                tool_call_chunk(**{key: call.get(key) for key in ("name", "args", "id", "index")})
                for call in calls or ()
            ],
            # One message to whoever sorts chunks by it.
            "id": self._id or chunk.id,
        }
        return [type(chunk)(**fields)]

    def _new(self, path: _Path, piece: Any) -> Any:
        """Return the characters or items that are new. Raises _Diverged."""
        cursor = self._cursors.get(path)
        if cursor is None:
            cursor = self._cursors[path] = _Cursor("" if isinstance(piece, str) else [])
        if path in self._unreplayed:
            size = min(len(piece), len(cursor.given) - cursor.at)
            if cursor.given[cursor.at : cursor.at + size] != piece[:size]:
                raise _Diverged
            cursor.at += size
            if cursor.at == len(cursor.given):
                self._unreplayed.discard(path)
            piece = piece[size:]
        if piece:
            self._fresh = True
            cursor.parts.append(piece)
        return piece

    def _rest(self, path: _Path, value: Any) -> Any:
        """Return what is new of a text, a list of blocks or a block; falsy if nothing is."""
        if not value:
            return value
        if isinstance(value, str):
            return self._new(path, value)
        if isinstance(value, list):
            return [rest for each in value if (rest := self._element(path, each))]
        fields = {key: self._field(path, key, each) for key, each in value.items()}
        carried = {key for key, each in value.items() if key in _LABELS or each is None}
        if all(fields[key] is _NOTHING for key in value.keys() - carried):
            return {}
        return {key: rest for key, rest in fields.items() if rest is not _NOTHING}

    def _element(self, path: _Path, value: Any) -> Any:
        if isinstance(value, str):
            return self._new(path, value)
        place = None
        if isinstance(value, dict):
            place = value.get("index")
            if place is None and value.get("type") in _RUNNING:
                place = value["type"]
        if isinstance(place, int | str):
            return self._rest((*path, place), value)
        # LangChain appends it: an item of its own, which comes whole.
        return value if self._new((*path, "items"), [_comparable(value)]) else None

    def _field(self, path: _Path, key: str, value: Any) -> Any:
        if key in _LABELS or value is None:
            return value
        path = (*path, key)
        grows = isinstance(value, str | list) or (
            isinstance(value, dict) and value.keys() - _LABELS
        )
        if value and grows and not _opaque(key):
            return self._rest(path, value) or _NOTHING
        # An empty signature comes before the one that counts.
        once = (*path, bool(value))
        self._once.add(once)
        return _NOTHING if once in self._before or path in self._cursors else value

    def _metadata(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        rest = {}
        for key, value in metadata.items():
            path = ("response_metadata", key)
            self._once.add(path)
            # Lists, as of log probabilities, go on with the text.
            running = self._fresh and isinstance(value, list | dict)
            if running or path not in self._before:
                rest[key] = value
        return rest

    def _usage(self, usage: Any) -> dict[str, Any] | None:
        """Return the usage that makes the caller's sum that of this attempt."""
        if not usage:
            return None
        self._owed_usage = _sum(self._owed_usage, usage)
        if self._unreplayed:
            return None
        owed, self._owed_usage = self._owed_usage, {}
        self._given_usage = _sum(self._given_usage, owed)
        return owed if _any(owed) else None


def _visible(path: _Path) -> bool:
    if path[:1] == ("content",):
        return len(path) == 1 or (len(path) == 3 and path[2] == "text")
    return path == ()


def _opaque(key: str) -> bool:
    return key in _OPAQUE or key.endswith("_id") or key.startswith("_")


def _comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _comparable(each) for key, each in value.items() if not _opaque(key)}
    return [_comparable(each) for each in value] if isinstance(value, list) else value


def _sum(a: Mapping[str, Any], b: Mapping[str, Any], sign: int = 1) -> dict[str, Any]:
    """Add up token counts, nested as in LangChain's usage."""
    total = dict(a)
    for key, value in b.items():
        if isinstance(value, Mapping):
            total[key] = _sum(total.get(key) or {}, value, sign)
        else:
            total[key] = (total.get(key) or 0) + sign * (value or 0)
    return total


def _any(usage: Mapping[str, Any]) -> bool:
    return any(_any(v) if isinstance(v, Mapping) else v for v in usage.values())

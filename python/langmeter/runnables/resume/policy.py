"""When a broken answer is asked for again: after which errors, how often, how soon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager

from langmeter import _core
from langmeter._base.check import real_number, whole_number
from langmeter._base.failures import ERROR, outcome_of, status_of
from langmeter.errors import BudgetExceeded, ConfigError, StreamDiverged, StreamTruncated

Manager = TypeVar("Manager", bound=BaseCallbackManager)
RestartOn = tuple[type[Exception], ...] | Callable[[Exception], bool]
Wait = float | Callable[[int], float]

#: Exceptions that mean a broken connection or an overloaded service, by the name of a class in the
#: MRO, so that no client need be imported: openai, anthropic and others of their make; httpx and
#: httpx2; httpcore; urllib3 and requests; aiohttp; botocore; google.
BROKEN: Final = frozenset(
    {
        "ConnectionError",
        "TimeoutError",
        "APIError",
        "TransportError",
        "NetworkError",
        "ProtocolError",
        "TimeoutException",
        "IncompleteRead",
        "IncompleteReadError",
        "ChunkedEncodingError",
        "Timeout",
        "ClientPayloadError",
        "ClientConnectionError",
        "HTTPClientError",
        "EventStreamError",
        "ServiceUnavailable",
    }
)
#: Refusals that the clients of OpenAI and Anthropic try again by themselves; and all from 500 up.
_PASSING: Final = frozenset({408, 409, 429})


class Policy(NamedTuple):
    """When to start again; the arguments of `resume` of these names."""

    max_restarts: int
    restart_on: Callable[[Exception], bool]
    retry_start: bool
    wait: Wait

    @classmethod
    def of(cls, max_restarts: int, restart_on: Any, retry_start: bool, wait: Any) -> Policy:
        """Raises ConfigError where one cannot be."""
        whole_number("max_restarts", max_restarts, 0)
        if not callable(wait):
            _seconds(wait)
        return cls(max_restarts, _predicate(restart_on), bool(retry_start), wait)


class Attempts:
    """The attempts at one answer."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._notes: list[str] = []
        self._cause: Exception | None = None

    @property
    def tag(self) -> str | None:
        """Tag of the current attempt, as `with_retry` writes it; None for the first."""
        return f"{_core.RETRY_TAG}{len(self._notes) + 1}" if self._notes else None

    @property
    def event_data(self) -> dict[str, Any]:
        """Data of the custom event that reports a restart."""
        return {"attempt": len(self._notes) + 1, "error": type(self._cause).__name__}

    def pause(self) -> float:
        """Seconds before the coming attempt."""
        wait = self._policy.wait
        return _seconds(wait(len(self._notes) + 1)) if callable(wait) else wait

    def should_restart(self, error: Exception, *, begun: bool) -> bool:
        """Whether to start again after an error; if not, it goes on with the earlier ones told."""
        policy, notes = self._policy, self._notes
        more = len(notes) < policy.max_restarts and (begun or policy.retry_start)
        if more and self._broke(error):
            notes.append(f"resume: attempt {len(notes) + 1} broke: {type(error).__name__}: {error}")
            # Its traceback holds our frame, which holds this: a cycle.
            self._cause = error.with_traceback(None)
            return True
        for note in notes:
            error.add_note(note)
        cause = self._cause
        if error.__cause__ is None and cause is not None and cause is not error:
            error.__cause__ = cause
        return False

    def _broke(self, error: Exception) -> bool:
        if isinstance(error, StreamTruncated):
            return True
        if isinstance(error, BudgetExceeded | StreamDiverged) or outcome_of(error) != ERROR:
            return False
        return self._policy.restart_on(error)


class FirstTokenProbe(BaseCallbackHandler):
    """Sees whether a model that is invoked streams inside, as it does in many graphs."""

    run_inline = True
    ignore_chain = ignore_agent = ignore_retriever = ignore_retry = ignore_custom_event = True

    def __init__(self) -> None:
        self.token = False

    def join(self, manager: Manager) -> Manager:
        """Add this handler to a manager, and return the manager."""
        manager.add_handler(self)
        return manager

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        """Not to be left out: LangChain would write the messages as text for `on_llm_start`."""

    def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None:
        """A first chunk came."""
        self.token = True

    on_stream_event = on_llm_new_token


def _seconds(wait: Any) -> float:
    return real_number("wait", wait, 0, unit="seconds", remedy="or give a function of the attempt")


def _predicate(restart_on: Any) -> Callable[[Exception], bool]:
    if restart_on is None:
        return _broken
    if isinstance(restart_on, type):
        restart_on = (restart_on,)
    if isinstance(restart_on, tuple):
        if all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in restart_on):
            return lambda error: isinstance(error, restart_on)
    elif callable(restart_on):
        return restart_on  # type: ignore[no-any-return]
    raise ConfigError(
        f"restart_on = {restart_on!r}: must be a tuple of exception classes, "
        "or a function of an exception"
    )


def _broken(error: Exception) -> bool:
    """Whether an error means that a stream broke, and not that a request is wrong."""
    status = status_of(error)
    if status is not None and status >= 400:
        return status >= 500 or status in _PASSING
    return any(cls.__name__ in BROKEN for cls in type(error).__mro__)

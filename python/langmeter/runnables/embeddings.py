"""Embedding models, which fire no callbacks: metered by a wrapper around their four methods."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from time import time
from typing import Any, Final, NamedTuple, NoReturn
from uuid import UUID, uuid4

from langchain_core.embeddings import Embeddings
from langchain_core.runnables.config import var_child_runnable_config

from langmeter._base.failures import CANCELLED, outcome_of
from langmeter._core import DEPLOYMENT_KEYS, input_bound
from langmeter.callbacks.base import LLM, Callback
from langmeter.callbacks.model_end import OK
from langmeter.defects.attempt import number_around
from langmeter.prices.book import Priced
from langmeter.scopes import installed
from langmeter.usage import TokenCounter, Usage, requested
from langmeter.usage.token_counters import counted

#: Where the integrations keep the model's name; some keep a loaded model under the first of them.
_MODELS: Final = ("model", "model_name", "model_id", "repo_id")
_ADDRESSES: Final = ("openai_api_base", "base_url", "api_base", "endpoint")
_ENDS: Final = ("Model", "Embeddings", "Embedding")


def track_embeddings(
    embeddings: Embeddings,
    meter: Callback | None = None,
    *,
    token_counter: TokenCounter | None = None,
) -> Embeddings:
    """Wrap an embedding model so that its calls are metered: calls, tokens, latency, cost, errors.

    Each call of `embed_documents`, `embed_query` and their async forms is one model call under
    `(provider, model)` and one of the component `("llm", class name)`. Everything else passes
    through to the wrapped object. Wrap what sends the requests: around a `CacheBackedEmbeddings`
    the wrapper would count what the cache answers.

    A call in the block of an attempt, or below a run that is one, counts to the attempt; it is not
    an answer, so the attempt does not belong to the embedding model.

    Budgets of the meter cover these calls too, by provider and model: a blocking one raises
    `BudgetExceeded` to the caller, before the call is made.

    LangChain's embeddings report no usage, so tokens are counted here, before the call and in its
    thread, and marked estimated: by `token_counter`, else by what the meter's `token_counters` have
    for the model, else as tiktoken does for a model of OpenAI, else not at all. A call that failed
    has none.

    A call holds of a budget what its texts were counted at or, where no counter is exact, a token
    a byte. The tokens of those are not known at the end either: they spend a call and no tokens.

    `meter` is any of langmeter's callbacks; None is the one that `install()` installed.

    Raises:
        ValueError: no meter was given and none is installed.
        TypeError: the object is not an `Embeddings`.
    """
    if not isinstance(embeddings, Embeddings):
        raise TypeError(
            f"embeddings must be langchain_core.embeddings.Embeddings, got {embeddings!r}"
        )
    if meter is None:
        meter = installed()
        if meter is None:
            raise ValueError(
                "no meter is installed; call langmeter.install() first, "
                "or give one: track_embeddings(embeddings, meter)"
            )
    if isinstance(embeddings, _Tracked):
        there = embeddings._langmeter.meter
        if there._services is meter._services:
            return embeddings  # twice around would count twice
    return _Tracked(embeddings, _Books(meter, token_counter))


class _Books(NamedTuple):
    """Where calls are counted, and by what their tokens."""

    meter: Callback
    token_counter: TokenCounter | None

    def tokens(self, texts: Sequence[str], asked: tuple[str, str]) -> int | None:
        """Return the tokens of the texts; None when no counter is exact."""
        count = self.token_counter or self.meter._services.estimator.exact_counter(*asked)
        # What can only be gone through once is the wrapped object's to go through.
        if count is None or not isinstance(texts, list | tuple):
            return None
        return sum(counted(count, text) for text in texts)


class _Call:
    """One call, from its start to its end.

    What fails in here never reaches the caller; what a budget refuses does.
    """

    __slots__ = ("asked", "books", "deployment", "run", "started", "texts", "tokens", "wrapped")

    def __init__(self, tracked: _Tracked, texts: Sequence[str]) -> None:
        self.books, self.wrapped = tracked._langmeter, tracked.__wrapped__
        self.texts = texts
        self.run: UUID | None = None
        self.tokens: int | None = None
        meter = self.books.meter
        try:
            self.asked = _asked(self.wrapped)
            self.deployment = _text(self.wrapped, *DEPLOYMENT_KEYS, "deployment")
        except BaseException as exc:
            self.asked, self.deployment = ("", ""), ""
            meter._failed("track_embeddings", exc)
        try:
            self.tokens = self.books.tokens(texts, self.asked)
        except BaseException as exc:
            meter._failed("token_counter", exc)

    def __enter__(self) -> None:
        services, refused = self.books.meter._services, None
        try:
            run = uuid4()
            name = type(self.wrapped).__name__
            self.started = time()
            ledger = services.open_books()
            demand = (
                None
                if ledger is None
                else ledger.demand.embedding(*self.asked, self._most(), self.deployment)
            )
            labels = services.without_labels
            start = (run, None, LLM, name, *self.asked, demand, labels)
            release = None if ledger is None else ledger.make_room
            refused = services.recorder.run_started(*start, make_room=release)
            if refused is None:
                self.run = run
                attempt = number_around(services, _run_around())
                if attempt is not None:
                    services.attempts.join(run, attempt, embeds=True)
        except BaseException as exc:
            self.books.meter._failed("track_embeddings", exc)
        if refused is not None:
            services.refused(*refused)

    def _names(self) -> Priced:
        provider, model = self.asked
        return Priced(provider, model, deployment=self.deployment)

    def _most(self) -> int:
        """Tokens of the texts, at most."""
        if self.tokens is not None:
            return self.tokens
        # What can only be gone through once is the wrapped object's to go through.
        texts = self.texts if isinstance(self.texts, list | tuple) else ()
        return input_bound(list(texts))

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.run is None:
            return
        services, tokens = self.books.meter._services, self.tokens
        try:
            outcome = OK if error is None else outcome_of(error)
            usage = cost = None
            # Who gives up has sent the texts all the same.
            if tokens is not None and outcome in (OK, CANCELLED):
                usage = Usage(input=tokens, total=tokens, estimated=tokens)
                cost = services.cost(self._names(), usage, self.started)
            recorder = services.recorder
            request = recorder.requested(self.run)
            crossed = recorder.run_ended(self.run, LLM, outcome, usage=usage, cost=cost)
            if crossed:
                services.crossed(crossed)
            if request and usage is not None and cost is None:
                services.unpriced(self._names(), outcome, request, [usage[:-1]])
        except BaseException as exc:
            self.books.meter._failed("track_embeddings", exc)


class _Tracked(Embeddings):
    """An embedding model whose calls are metered; for the rest it is what it wraps."""

    __wrapped__: Embeddings
    _langmeter: _Books

    def __init__(self, wrapped: Embeddings, books: _Books) -> None:
        vars(self).update(__wrapped__=wrapped, _langmeter=books)

    def embed_documents(self, texts: list[str], *args: Any, **kwargs: Any) -> list[list[float]]:
        with _Call(self, texts):
            return self.__wrapped__.embed_documents(texts, *args, **kwargs)

    def embed_query(self, text: str, *args: Any, **kwargs: Any) -> list[float]:
        with _Call(self, [text]):
            return self.__wrapped__.embed_query(text, *args, **kwargs)

    async def aembed_documents(
        self, texts: list[str], *args: Any, **kwargs: Any
    ) -> list[list[float]]:
        with _Call(self, texts):
            return await self.__wrapped__.aembed_documents(texts, *args, **kwargs)

    async def aembed_query(self, text: str, *args: Any, **kwargs: Any) -> list[float]:
        with _Call(self, [text]):
            return await self.__wrapped__.aembed_query(text, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        # Python asks for these by itself, in `copy` before there is anything to pass on to.
        if name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.__wrapped__, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.__wrapped__, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.__wrapped__, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self.__wrapped__)})

    def __repr__(self) -> str:
        return f"track_embeddings({self.__wrapped__!r})"

    def __copy__(self) -> _Tracked:
        return _Tracked(copy.copy(self.__wrapped__), self._langmeter)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Tracked:
        # As with handlers: a copy reports to the same books.
        return _Tracked(copy.deepcopy(self.__wrapped__, memo), self._langmeter)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            "tracked embeddings count in this process and cannot be pickled; pickle what they "
            "wrap, their `__wrapped__`, and call track_embeddings in the other process"
        )


def _run_around() -> object:
    """Return the id of the LangChain run that this thread or task is in; None outside."""
    callbacks = (var_child_runnable_config.get() or {}).get("callbacks")
    return getattr(callbacks, "parent_run_id", None)


def _asked(embeddings: Embeddings) -> tuple[str, str]:
    """Provider and model, each "" when nothing tells, in the words of `langmeter.usage`."""
    addresses = {name: _text(embeddings, name) for name in _ADDRESSES}
    guess = {"ls_provider": _vendor(embeddings), "ls_model_name": _text(embeddings, *_MODELS)}
    provider, model = requested(guess, None, {"kwargs": addresses})
    # AzureOpenAIEmbeddings calls its deployment, and has a default for a model that was not named.
    chosen = getattr(embeddings, "model_fields_set", ())
    if provider == "azure.ai.openai" and "model" not in chosen:
        model = _text(embeddings, "deployment") or model
    return provider, model


def _vendor(embeddings: Embeddings) -> str:
    """The class of the integration without "Embeddings"; a user's own subclass of it is it too."""
    classes = type(embeddings).__mro__
    first = next((cls for cls in classes if cls.__module__.startswith("langchain")), classes[0])
    name = (classes[0] if first is Embeddings else first).__name__
    for end in _ENDS:
        name = name.removesuffix(end)
    # HuggingFaceEndpointEmbeddings, HuggingFaceBgeEmbeddings and their like.
    return "huggingface" if name.startswith("HuggingFace") else name


def _text(source: object, *names: str) -> str:
    for name in names:
        value = getattr(source, name, None)
        if value and isinstance(value, str):
            return value
    return ""

"""`ProviderManager`: several chat models as one."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from langchain_core.callbacks import CallbackManager
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.outputs import ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableBinding
from langchain_core.runnables.config import ensure_config

from langmeter._base.check import one_of, real_number, refusal
from langmeter.callbacks.base import Callback
from langmeter.errors import ConfigError
from langmeter.runnables.attach import attach
from langmeter.runnables.models import ModelChanges
from langmeter.runnables.providers.circuit import HealthOptions
from langmeter.runnables.providers.decisions import Explanation, Preview
from langmeter.runnables.providers.delegate import Delegate
from langmeter.runnables.providers.policies import PolicySource, policy_of
from langmeter.runnables.providers.request import without_marks
from langmeter.runnables.providers.route import Route
from langmeter.runnables.providers.router import Router, profile_of

_DAY: Final = 86_400.0


class ProviderManager(Delegate, BaseChatModel):
    """A chat model that hands each call to one of several, and to the next one where it fails.

    `ProviderManager({"nim": nim, "openai": gpt}, meter=meter).invoke("…")`. Each attempt is a run
    of the provider's own model, and the manager opens none, so that every handler counts each
    attempt once. The names are those of the providers in figures.

    First the providers that cannot take a call are left out: its images, tools or schema, its
    length by the `profile` of the model, a blocking budget of `meter` with nothing left, an open
    circuit. The policy puts the others in order; those within 10 % of the best take turns. A
    conversation (`thread_id`, `conversation_id` or `session_id` in the config) stays with its
    provider while what the provider's cache saves is worth more.

    Args:
        providers: name to chat model, in the order of priority.
        policy: "priority"; "cheapest", by the size of the prompt, the usual output and the price
            book; "fastest", by the p95 of the last minutes, for streams of the time to the first
            token; "healthiest", by the share of calls that did not fail; "best_fix_rate", for the
            type of the defect at hand; a mapping of weights; or a function of the snapshot and the
            names that can take the call, which returns a name or several in order.
        meter: what is measured there decides; it meters the providers, too.
        health: when a provider is not called, and for how long.
        on_budget: when a budget refuses a call, "stop" lets BudgetExceeded through, "cheaper" asks
            the providers that cost less, the cheapest first.
        wait: seconds that a call waits at most for a provider to return, when all are away.
        stall_after: seconds without a chunk after which a stream is given up, and five times as
            many before its first content; None for never. In sync code a late chunk tells, and
            silence ends by the client's own time-out.
        refresh: seconds between two readings of the meter.

    Raises:
        ConfigError: a value is out of range, or a policy needs a meter.
        When called, the error of the last attempt, with the earlier ones in its notes;
        NoProviderError; BudgetExceeded.
    """

    providers: dict[str, BaseChatModel]

    def __init__(
        self,
        providers: Mapping[str, BaseChatModel],
        *,
        policy: PolicySource = "priority",
        meter: Callback | None = None,
        health: HealthOptions | None = None,
        on_budget: Literal["stop", "cheaper"] = "stop",
        wait: float = 30.0,
        stall_after: float | None = 60.0,
        refresh: float = 1.0,
        **fields: Any,
    ) -> None:
        models = _checked(providers)
        if health is not None and not isinstance(health, HealthOptions):
            raise refusal("health", "HealthOptions", health, "pass e.g. HealthOptions(failures=3)")
        one_of("on_budget", on_budget, ("stop", "cheaper"))
        real_number("wait", wait, 0, _DAY, unit="seconds")
        real_number("refresh", refresh, 0.001, _DAY, unit="seconds")
        if stall_after is not None:
            real_number("stall_after", stall_after, 0.001, _DAY, unit="seconds", remedy="or None")
        chosen = policy_of(policy, tuple(models), metered=meter is not None)
        super().__init__(**{"providers": models, **fields})
        for name, model in models.items():
            ModelChanges(model).name_provider(name)
        if meter is not None:
            attach(models, meter)
        router = Router(
            models,
            chosen,
            meter,
            health=health or HealthOptions(),
            on_budget=on_budget,
            wait=wait,
            refresh=refresh,
        )
        # Not as private attributes of pydantic, of which each reading takes 2 µs.
        vars(self).update(_router=router, _targets=models, _missing={}, _stall_after=stall_after)
        if "profile" in type(self).model_fields and self.profile is None:
            self.profile = _common(models.values())

    @property
    def _llm_type(self) -> str:
        return "langmeter-provider-manager"

    # --- what is decided -------------------------------------------------------------------------

    def explain(self) -> Explanation:
        """Return policy, state of each provider, counts of decisions, and the last 100 of them."""
        router = self._router
        return Explanation(router.policy.name, router.states(), self.decisions, router.log.last)

    @property
    def decisions(self) -> Mapping[tuple[str, str], int]:
        """`(provider, why)` to how often; the words are those of `explain()`."""
        return self._router.log.counts

    def preview(self, prompt: LanguageModelInput, config: Any = None) -> Preview:
        """Return where a call would go now and why, without calling or counting anything."""
        return self._router.preview(self._route(prompt, config).request, self._missing)

    def refresh(self) -> None:
        """Read the meter now, in milliseconds, instead of within `refresh` seconds."""
        self._router.live.refresh()

    def enable(self, name: str) -> None:
        """Call a provider again at once, as after a new key. Raises KeyError for another name."""
        self._router.providers[name].circuit.enable()

    # --- tools and schemas -----------------------------------------------------------------------

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> ProviderManager:
        """Return the manager with tools, bound to each provider in its own format.

        Providers that take no tools are left out. Raises NotImplementedError if all are.
        """
        bound = copy.copy(self)
        targets, missing = self._bound(
            "tools", "tool_calling", lambda model: model.bind_tools(tools, **kwargs)
        )
        vars(bound).update(_targets=targets, _missing=missing)
        return bound

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> StructuredProviders:
        """Return a runnable of parsed answers, with the schema bound to each provider by itself.

        An answer that cannot be parsed goes to the next provider, too, and is not a failure of its
        provider. Providers that cannot take the schema are left out. Raises NotImplementedError if
        all are.
        """

        def bind(model: BaseChatModel) -> Runnable[Any, Any]:
            return model.with_structured_output(schema, include_raw=include_raw, **kwargs)

        return StructuredProviders(self, *self._bound("structured_output", "", bind))

    def _bound(
        self, what: str, feature: str, bind: Callable[[BaseChatModel], Runnable[Any, Any]]
    ) -> tuple[dict[str, Runnable[Any, Any]], dict[str, str]]:
        targets, missing = {}, {}
        errors = []
        for name, provider in self._router.providers.items():
            profile = provider.profile
            lacks = profile.get("tool_calling") is False and (
                feature == "tool_calling" or profile.get("structured_output") is not True
            )
            if lacks:
                missing[name] = what
                continue
            try:
                targets[name] = bind(provider.model)
            except (NotImplementedError, ValueError) as error:
                errors.append(error)
                missing[name] = what
        if not targets:
            raise (
                errors[0]
                if errors
                else NotImplementedError(
                    f"none of the providers {', '.join(missing)} has {what.replace('_', ' ')}"
                )
            )
        return targets, missing

    # --- what BaseChatModel does in runs of its own ----------------------------------------------

    def _own_config(self, config: Any) -> Any:
        """Return the config with the manager's own callbacks, tags and metadata."""
        metadata = self.metadata  # never without LangChain's own key
        if not (self.callbacks or self.tags) and (metadata is None or len(metadata) == 1):
            return config
        merged: Any = ensure_config(config)
        merged["callbacks"] = self._own_callbacks(merged.get("callbacks"))
        merged["tags"] = [*(merged.get("tags") or ()), *(self.tags or ())]
        merged["metadata"] = {**(self.metadata or {}), **(merged.get("metadata") or {})}
        return merged

    def _own_callbacks(self, callbacks: Any) -> Any:
        """Add the manager's own callbacks, each once."""
        return CallbackManager.configure(callbacks, self.callbacks) if self.callbacks else callbacks

    def generate(
        self, messages: list[Any], stop: Any = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """Return the answers of one provider to all prompts, as its model generates them."""
        kwargs |= {"stop": stop, "callbacks": self._own_callbacks(callbacks)}
        result: LLMResult = self._call("generate", messages, kwargs)
        return result

    async def agenerate(
        self, messages: list[Any], stop: Any = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """Return the answers of one provider to all prompts, as its model generates them."""
        kwargs |= {"stop": stop, "callbacks": self._own_callbacks(callbacks)}
        result: LLMResult = await self._acall("agenerate", messages, kwargs)
        return result

    def _generate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        kwargs |= {"stop": stop, "run_manager": run_manager}
        result: ChatResult = self._call("_generate", messages, kwargs)
        return result

    async def _agenerate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        kwargs |= {"stop": stop, "run_manager": run_manager}
        result: ChatResult = await self._acall("_agenerate", messages, kwargs)
        return result

    def _call(self, method: str, messages: Any, kwargs: Mapping[str, Any]) -> Any:
        """Return what a method of the chosen provider's model returns, or of the next one's."""
        route = self._generation(messages, kwargs)
        while True:
            while seconds := route.next():
                time.sleep(seconds)
            with route:
                return self._call_model(route, method, messages, kwargs)

    async def _acall(self, method: str, messages: Any, kwargs: Mapping[str, Any]) -> Any:
        route = self._generation(messages, kwargs)
        while True:
            while seconds := route.next():
                await asyncio.sleep(seconds)
            with route:
                return await self._call_model(route, method, messages, kwargs)

    def _generation(self, messages: list[Any], kwargs: Mapping[str, Any]) -> Route:
        """Return the route of prompts that one provider answers together."""
        metadata = kwargs.get("metadata")
        if messages and isinstance(messages[0], list):
            messages = [message for prompt in messages for message in prompt]
        return self._route(messages, {"metadata": metadata} if metadata else None)

    def _call_model(
        self, route: Route, method: str, prompts: list[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Call a method of the provider's own model, with the tools that are bound to it."""
        provider = route.provider
        target = self._targets[provider.name]
        bound = target.kwargs if isinstance(target, RunnableBinding) else {}
        if route.request.marks:
            if prompts and isinstance(prompts[0], list):
                prompts = [without_marks(prompt, provider.foreign) for prompt in prompts]
            else:
                prompts = without_marks(prompts, provider.foreign)
        if route.attempts > 1:
            kwargs = {name: value for name, value in kwargs.items() if name != "run_id"}
        return getattr(provider.model, method)(prompts, **{**bound, **kwargs})

    def stream_events(
        self, input: Any, config: Any = None, *, version: Any = "v2", **kwargs: Any
    ) -> Any:
        """Return the events of a stream; of version v3 those of one provider, without fallback."""
        if version != "v3":
            return super().stream_events(input, config, version=version, **kwargs)
        config = self._own_config(config)
        route = self._route(input, config, streamed=True)
        while seconds := route.next():
            time.sleep(seconds)
        route.released()  # the stream begins after this call
        target, prompt, own = self._arguments(route, input, config)
        return target.stream_events(prompt, own, version="v3", **kwargs)

    def astream_events(
        self, input: Any, config: Any = None, *, version: Any = "v2", **kwargs: Any
    ) -> Any:
        """Return the events of a stream; of version v3 those of one provider, without fallback."""
        if version != "v3":
            return super().astream_events(input, config, version=version, **kwargs)
        return self._aevents(input, self._own_config(config), kwargs)

    async def _aevents(self, input: Any, config: Any, kwargs: Mapping[str, Any]) -> Any:
        route = self._route(input, config, streamed=True)
        while seconds := route.next():
            await asyncio.sleep(seconds)
        route.released()
        target, prompt, own = self._arguments(route, input, config)
        return await target.astream_events(prompt, own, version="v3", **kwargs)


class StructuredProviders(Delegate, Runnable[LanguageModelInput, Any]):
    """A manager with a schema: parsed answers of the chosen provider, or of the next one."""

    def __init__(
        self,
        manager: ProviderManager,
        targets: Mapping[str, Runnable[Any, Any]],
        missing: Mapping[str, str],
    ) -> None:
        self._manager = manager
        self._router, self._stall_after = manager._router, manager._stall_after
        self._targets, self._missing = targets, missing

    def _own_config(self, config: Any) -> Any:
        return self._manager._own_config(config)


def _checked(providers: Any) -> dict[str, BaseChatModel]:
    if not isinstance(providers, Mapping) or not providers:
        raise refusal("providers", "a mapping of names to chat models", providers)
    models = {}
    for name, model in providers.items():
        if not isinstance(name, str) or not name:
            raise refusal("providers", "a mapping with names that are texts", name)
        if not isinstance(model, BaseChatModel):
            remedy = "pass the chat model itself; settings belong into its constructor"
            raise refusal(f"providers[{name!r}]", "a chat model", model, remedy)
        models[name] = model
    if len(set(map(id, models.values()))) < len(models):
        raise ConfigError(
            f"providers must be different objects, got one model twice in {', '.join(models)}; "
            "make a model for each name"
        )
    return models


def _common(models: Iterable[BaseChatModel]) -> Any:
    """Return a profile that holds for all models: shortest lengths, common features; else None."""
    profiles = [profile_of(model) for model in models]
    if None in profiles:
        return None
    first, *others = [profile or {} for profile in profiles]
    common: dict[str, Any] = {}
    for key, value in first.items():
        values: list[Any] = [value, *(other.get(key) for other in others)]
        if all(isinstance(each, bool) for each in values):
            common[key] = all(values)
        elif all(isinstance(each, int) for each in values):
            common[key] = min(values)
    return common

"""The end of a model call that the native way does not take: errors, rare responses, no price."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from langmeter import _core
from langmeter._base.failures import INTERRUPTED, error_label, is_server_response
from langmeter._base.text import as_text
from langmeter.prices.book import Priced
from langmeter.prices.card import PICO
from langmeter.streaming.final_message import response_or_collected
from langmeter.usage import NOTHING, Reading, Usage, read
from langmeter.usage.estimate import unpack_prompt

if TYPE_CHECKING:
    from langmeter.callbacks.services import Services

OK, CACHE_HIT = map(_core.OUTCOMES.index, ("ok", "cache_hit"))

#: What is known of a run that is not in flight: provider, model, start.
_NOT_ASKED: tuple[str, str, float | None] = ("", "", None)


def model_end(
    services: Services,
    run_id: UUID,
    outcome: int,
    response: Any,
    kind: int,
    error: BaseException | None,
) -> None:
    """Hand usage, names and cost to the recorder, which applies them to model runs alone."""
    recorder, streams = services.recorder, services.streams
    if recorder.end_is_echo(run_id):
        return
    partial = None if streams is None else streams.take(run_id)
    reading = NOTHING if response is None else read(response)
    usage, cache_hit, billed = reading.usage, reading.cache_hit, reading.billed
    dialect, model = as_text(reading.provider), as_text(reading.model)
    # The response names the dialect it speaks ("openai" for Azure too), the request who serves.
    request = recorder.requested(run_id)
    asked_provider, asked_model, started, *_ = request or _NOT_ASKED
    # Beyond `max_series` the recorder no longer knows who was asked; the response may.
    provider = dialect or asked_provider if asked_provider == "other" else asked_provider or dialect
    if reading.refused:
        recorder.dropped("usage_refused", reading.refused)
    prompts, (deployment, vendor) = services.take_prompt(run_id), services.take_called(run_id)
    refused = error is not None and is_server_response(error)
    answered = model or asked_model
    incomplete = usage is None or usage.input_missing
    if response is not None and not (cache_hit or refused) and incomplete:
        # Of a v3 stream that breaks the response has nothing; what was collected has.
        had = response if outcome == OK else response_or_collected(response, partial)
        usage = (
            _estimated(services, (vendor or provider, answered), prompts, had, outcome, reading)
            or usage
        )
    cost = None
    # Priced one by one, because each has a band of its own.
    parts = [] if usage is None else reading.parts(usage)
    if cache_hit:
        outcome = CACHE_HIT
    elif usage is not None:
        names = Priced(provider, model, asked_model, deployment, vendor, usage.tier)
        cost = _cost(services, names, parts, started)
    crossed = recorder.run_ended(
        run_id,
        kind,
        outcome,
        provider,
        model,
        usage,
        cost,
        None if billed is None else services.sane(round(billed * PICO)),
        reading.queue,
        reading.truncated,
        None if error is None or outcome == INTERRUPTED else error_label(error),
        () if request else services.label_names,
    )
    if crossed:
        services.crossed(crossed)
    # A run that is not in flight may have ended before: its price would come twice.
    if request and usage is not None and cost is None and not cache_hit:
        names = Priced(provider, answered, asked_model, deployment, vendor, usage.tier)
        services.unpriced(names, outcome, request, [part[:-1] for part in parts])
    if streams is not None:
        if usage is None and refused and partial is not None and partial.has_content:
            # No spend, as the server said that the call failed; but this is what had come.
            had = response_or_collected(response, partial)
            usage = _estimated(
                services, (vendor or provider, answered), prompts, had, outcome, reading
            )
        streams.ended(run_id, (provider, answered), outcome, partial, usage, cost, response, error)


def _cost(
    services: Services, names: Priced, parts: list[Usage], started: float | None
) -> int | None:
    """Return the sum of what parts of a call cost, in pico-dollars; None where one has no price."""
    costs = [services.cost(names, part, started) for part in parts]
    known = [cost for cost in costs if cost is not None]
    return services.sane(sum(known)) if len(known) == len(costs) else None


def _estimated(
    services: Services,
    names: tuple[str, str],
    asked: Any,
    response: Any,
    outcome: int,
    reading: Reading,
) -> Usage | None:
    """Estimate the usage from the texts; None where there is nothing to count."""
    prompts, tools, alone = unpack_prompt(asked)
    # The run of its batch's first prompt reports them all.
    if reading.usage_on_first_of_batch and not alone:
        return None
    try:
        if reading.usage is not None:
            return services.estimator.with_input(*names, prompts, reading.usage, tools)
        ended = outcome == OK
        used = services.estimator.usage(*names, prompts, response, ended=ended, tools=tools)
        if used is None and (reading.web_searches or reading.file_searches):
            used = Usage()
        return None if used is None else reading.complete(used)
    except BaseException as exc:
        services.hook_failed("token_counter", exc)
        return None

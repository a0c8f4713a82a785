"""The application: routes of the providers, what is refused, and scripts of replies."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from .delivery import Delivery
from .formats import Format, anthropic, gemini, openai_chat, openai_embeddings, openai_responses
from .formats.common import openai_error, sse
from .ground_truth import Tally
from .reply import FAULTS, Raw, Reply
from .traffic import MODELS, Request, Sampler, Traffic

#: Path of each format; `{path}` is the part that the format reads.
ROUTES: Mapping[str, Format] = {
    "/v1/chat/completions": openai_chat,
    "/v1/responses": openai_responses,
    "/v1/embeddings": openai_embeddings,
    "/openai/deployments/{path}/chat/completions": openai_chat,
    "/openai/deployments/{path}/embeddings": openai_embeddings,
    "/v1/messages": anthropic,
    "/v1beta/models/{path:path}": gemini,
    # Where langchain-google-genai looks under a `base_url`.
    "/v1/models/{path:path}": gemini,
}


class Service:
    """State that the routes share: the sampler, the script and the counts.

    Args:
        traffic: the shape of drawn replies.
    """

    def __init__(self, traffic: Traffic) -> None:
        self.tally = Tally()
        self.script: list[Reply | Raw] = []
        #: Decides about each request; None lets the script or the traffic decide about all.
        self.answer: Callable[[Request], Reply | Raw | None] | None = None
        self._sampler = Sampler(traffic)
        routes = [
            Route(path, _Endpoint(self, format), methods=["POST"])
            for path, format in ROUTES.items()
        ]
        self.app = Starlette(
            routes=[
                *routes,
                Route("/truth", self._truth),
                Route("/v1/models", self._models),
            ],
            exception_handlers={404: _not_found, 405: _not_found},
        )

    def reply(self, request: Request, force: Any) -> Reply | Raw:
        """Return what `answer` returns, else the next reply of the script, else a drawn one.

        Raises:
            ValueError: `force` is neither None, "ok" nor a fault.
        """
        if force not in (None, "ok", *FAULTS):
            raise ValueError(f"x-simulate must be ok or one of {', '.join(FAULTS)}, got {force}")
        given = self.answer(request) if self.answer is not None else None
        if given is not None:
            return given
        if self.script:
            # The last one answers all further requests.
            return self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return self._sampler.reply(request, force)

    async def _truth(self, _: HttpRequest) -> Response:
        return JSONResponse(self.tally.truth().to_dict())

    async def _models(self, _: HttpRequest) -> Response:
        models = [{"id": name, "object": "model", "owned_by": "langmeter"} for name in MODELS]
        return JSONResponse({"object": "list", "data": models})


async def _not_found(request: HttpRequest, _: Exception) -> Response:
    return JSONResponse(openai_error(404, f"no such route: {request.url.path}"), 404)


class _Endpoint:
    """One route as an ASGI application."""

    def __init__(self, service: Service, format: Format) -> None:
        self._service = service
        self._format = format

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the request, and refuse or answer it."""
        http = HttpRequest(scope, receive)
        # A client that leaves before its request is complete: nothing was sent.
        with contextlib.suppress(ClientDisconnect):
            await (await self._response(http))(scope, receive, send)

    async def _response(self, http: HttpRequest) -> ASGIApp:
        try:
            body = await _json(http)
            request = self._format.parse(body, http.path_params.get("path", ""))
            reply = self._service.reply(request, http.headers.get("x-simulate"))
        except ValueError as error:
            return self._refusal("", 400, str(error))
        if isinstance(reply, Raw):
            return _raw(reply, request)
        status = reply.refused
        if not status:
            return Delivery(reply, request, self._format, self._service.tally)
        headers = {}
        if status == 429:
            headers = {
                "retry-after": f"{max(1, round(reply.retry_after))}",
                "retry-after-ms": f"{reply.retry_after * 1000:.3f}",
            }
        model = reply.model or request.dated
        return self._refusal(model, status, f"The service answers {status}.", headers)

    def _refusal(
        self, model: str, status: int, message: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        outcome = "rate_limited" if status == 429 else "invalid"
        self._service.tally.add(model, "server_error" if status >= 500 else outcome)
        return JSONResponse(self._format.error(status, message), status, headers)


async def _json(http: HttpRequest) -> Mapping[str, Any]:
    """Return the body of a request.

    Raises:
        ValueError: it is not a JSON object.
    """
    body = await http.json()
    if not isinstance(body, dict):
        raise ValueError("the body must be an object")
    return body


def _raw(raw: Raw, request: Request) -> Response:
    if not request.streamed:
        return JSONResponse(raw.whole)
    events = b"".join(sse(event, event.get("type", "")) for event in raw.events)
    return Response(events, media_type="text/event-stream")

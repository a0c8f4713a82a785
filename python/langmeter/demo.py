"""The main job: a real LangChain pipeline, hundreds of calls in flight, metered and checked.

`langmeter demo` runs it. The pipeline is what a small service would have, `tool | prompt |
ChatOpenAI | parser` with retries, called in all four ways (`invoke`, `stream`, `ainvoke`,
`astream`) by clients some of whom give up. The model is `langmeter.testing.simulator` on loopback,
which knows exactly what it sent; the closing check holds the meter's figures against it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from langmeter._base import output
from langmeter.testing.simulator import Simulator, Truth

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable

    from langmeter import Meter, Snapshot

    Chain = Runnable[dict[str, Any], Any]

WAYS: Final = ("invoke", "astream", "stream", "ainvoke")
MODELS: Final = ("gpt-4o-mini", "gpt-4o-mini", "gpt-4.1-mini", "gpt-4o", "o4-mini")
#: Shorter than life, where the medians are 129 and 160 tokens: the OpenAI client takes 0.6 ms of
#: CPU for each streamed token, and 400 calls shall be over in 15 s on two cores.
SHORT: Final[Mapping[str, Any]] = {
    "output_tokens": (24.0, 0.86),
    "reasoning_tokens": (64.0, 0.6),
}
#: One call in so many belongs to a client that gives up: it leaves a stream at its first word, or
#: has no more patience with an answer in one piece.
GIVES_UP: Final = 25
PATIENCE: Final = 2.0  # seconds
PACKAGES: Final = ("langchain_openai", "rich", "starlette", "uvicorn")
MISSING: Final = "langmeter demo needs {}: pip install 'langmeter[demo]'"
GLOSSARY: Final = {
    "histogram": "Counts of values by range; an HDR histogram keeps a fixed relative precision.",
    "quantile": "The value below which a given share of all values lies.",
    "token": "The piece of text that a language model reads and writes, and is paid for.",
    "stream": "An answer that arrives piece by piece while it is being written.",
    "budget": "The amount that may be spent in a period.",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the job: which model, in which of `WAYS`, and whether its client gives up."""

    number: int
    model: str
    way: str
    gives_up: bool

    @property
    def pipeline(self) -> str:
        """Name of the pipeline: "answer", or one of those for clients that give up."""
        if not self.gives_up:
            return "answer"
        return "wait" if self.way == "ainvoke" else "glance"

    @property
    def question(self) -> dict[str, Any]:
        """Return the question of a call; no two calls ask the same."""
        term = tuple(GLOSSARY)[self.number % len(GLOSSARY)]
        return {"term": term, "question": f"Question {self.number}: what is a {term}, in short?"}


def plan(calls: int, seed: int) -> list[Call]:
    """Return the calls in order; no sync `invoke` is given up, nor one of the first quarter."""
    rng = random.Random(seed)
    ways = itertools.cycle(WAYS)
    return [
        Call(
            number,
            rng.choice(MODELS),
            way := next(ways),
            rng.random() < 1 / GIVES_UP and number > calls // 4 and way != "invoke",
        )
        for number in range(1, calls + 1)
    ]


def run_demo(
    calls: int = 400,
    concurrency: int = 64,
    json: str | None = None,
    *,
    report: str | None = None,
    seed: int = 1,
    speed: float = 1.0,
    file: TextIO | None = None,
) -> int:
    """Run the job and print the report and the check.

    Args:
        calls: how many times the pipeline is asked; retries come on top.
        concurrency: how many of them are in flight at most.
        json: a file for `Snapshot.to_json()`.
        report: a file for the report as an HTML page; the last line says where it is.
        seed: the same seed gives the same calls and the same tokens.
        speed: how many times faster than life the simulated service is.
        file: where to print; standard output by default.

    Returns:
        The exit code: 0, 1 when the check or the writing of a file failed, 2 when a package is
        missing, 130 after Ctrl-C (with the report so far).

    Raises:
        ValueError: `calls` or `concurrency` is not positive.
    """
    if calls < 1 or concurrency < 1:
        raise ValueError("calls and concurrency must be positive")
    missing = next((name for name in PACKAGES if find_spec(name) is None), None)
    if missing is not None:
        print(MISSING.format(missing), file=sys.stderr)
        return 2
    from langmeter import Meter, MeterConfig

    todo = plan(calls, seed)
    service = Simulator(seed, speed=speed, **SHORT)
    job = _Job(todo, Meter(config=MeterConfig()), concurrency, file or sys.stdout)
    interrupted = job.run(service)
    code = _close(job, None if interrupted else service.truth(), json)
    return code if report is None else _write_report(job, report) or code


class _Job:
    """The calls on their way, and the table that shows them."""

    def __init__(self, todo: Sequence[Call], meter: Meter, concurrency: int, out: TextIO) -> None:
        self.todo = todo
        self.out = out
        self.done = 0
        self.seconds = 0.0
        self.snapshot = meter.snapshot()
        self._meter = meter
        self._concurrency = concurrency
        self._pool = ThreadPoolExecutor(concurrency, "langmeter-demo")

    def run(self, service: Simulator) -> bool:
        """Make all the calls; True when Ctrl-C came first."""
        began = time.monotonic()
        interrupted = False
        # Left in reverse: the service first, so that threads in a call see their connection end.
        with self._pool, service:
            many = f"{len(self.todo)} calls, {self._concurrency} at a time"
            output.show(f"{many}, to {service.url}", self.out)
            try:
                asyncio.run(self._run(service.url))
            except KeyboardInterrupt:
                interrupted = True
            self._pool.shutdown(wait=False, cancel_futures=True)
        self.seconds = time.monotonic() - began
        return interrupted

    async def _run(self, url: str) -> None:
        """Make the sync calls in threads, the others as tasks."""
        # Not httpx by name: openai decides which HTTP library it stands on.
        from openai import DefaultAsyncHttpxClient, DefaultHttpxClient

        asyncio.get_running_loop().set_exception_handler(_unless_langchain_left_it)
        gate = asyncio.Semaphore(self._concurrency)
        # A proxy in the environment has no business between a program and its own loopback.
        async with DefaultAsyncHttpxClient(trust_env=False) as async_client:
            with DefaultHttpxClient(trust_env=False) as client:
                chains = _chains(url, client, async_client)
                watch = asyncio.create_task(self._watch())
                try:
                    async with asyncio.TaskGroup() as group:
                        for call in self.todo:
                            chain = chains[call.model, call.pipeline]
                            group.create_task(self._one(call, chain, gate))
                finally:
                    # Before the client is closed, which fails what threads still have in flight.
                    self.snapshot = self._meter.snapshot()
                    watch.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await watch

    async def _one(self, call: Call, chain: Chain, gate: asyncio.Semaphore) -> None:
        import openai

        async with gate:
            # Errors that outlive the retries, and givers-up, are what the meter is here to count.
            with contextlib.suppress(openai.OpenAIError, TimeoutError):
                if call.way in ("invoke", "stream"):
                    loop = asyncio.get_running_loop()
                    await loop.run_in_executor(self._pool, self._in_thread, call, chain)
                else:
                    await self._in_task(call, chain)
            self.done += 1

    def _in_thread(self, call: Call, chain: Chain) -> None:
        config: Any = {"callbacks": [self._meter]}
        if call.way == "invoke":
            chain.invoke(call.question, config)
            return
        stream = chain.stream(call.question, config)
        with contextlib.closing(stream):  # type: ignore[type-var]
            for piece in stream:
                if call.gives_up and piece.content:
                    break

    async def _in_task(self, call: Call, chain: Chain) -> None:
        config: Any = {"callbacks": [self._meter]}
        if call.way == "ainvoke":
            await chain.ainvoke(call.question, config)
            return
        # Left by `break`, as a timeout may be lost here: langchain-openai waits for each piece with
        # `asyncio.wait_for`, which before Python 3.12 forgets a cancellation that comes with one.
        stream = chain.astream(call.question, config)
        async with contextlib.aclosing(stream):  # type: ignore[type-var]
            async for piece in stream:
                if call.gives_up and piece.content:
                    break

    async def _watch(self) -> None:
        """Show progress until cancelled: a live table, or lines where there is no terminal."""
        from rich.console import Console, Group
        from rich.live import Live
        from rich.text import Text

        from langmeter.report.terminal import table

        console = Console(file=self.out)
        if not console.is_terminal:
            while True:
                await asyncio.sleep(1.0)
                output.show(f"  {self._line(self._meter.snapshot())}", self.out)
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while True:
                await asyncio.sleep(0.25)
                snapshot = self._meter.snapshot()
                live.update(Group(Text(self._line(snapshot)), table(snapshot)), refresh=True)

    def _line(self, snapshot: Snapshot) -> str:
        tokens = snapshot.totals.tokens.total
        return (
            f"{self.done} of {len(self.todo)} calls done, {snapshot.in_flight} in flight, "
            f"{tokens:,} tokens"
        )


def _unless_langchain_left_it(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report what asyncio found lying about, but for the ends of LangChain's own iterations.

    Its parallel step, when cancelled (Ctrl-C), leaves tasks behind that ended as iterators do.
    """
    if not isinstance(context.get("exception"), StopAsyncIteration):
        loop.default_exception_handler(context)


def _chains(url: str, client: Any, async_client: Any) -> Mapping[tuple[str, str], Chain]:
    """(model, `Call.pipeline`) → the chain."""
    import openai
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnablePassthrough
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    @tool
    def glossary(term: str) -> str:
        """Look up a term in the glossary."""
        return GLOSSARY[term]

    prompt = ChatPromptTemplate.from_messages(
        [("system", "Answer with the help of this note: {note}"), ("human", "{question}")]
    )
    ask = RunnablePassthrough.assign(note=itemgetter("term") | glossary) | prompt
    chains: dict[tuple[str, str], Chain] = {}
    for name in MODELS:
        model = ChatOpenAI(
            model=name,
            base_url=url,
            api_key="loopback",  # type: ignore[arg-type]
            max_retries=0,  # LangChain retries instead, where the meter sees each attempt
            stream_usage=True,  # off by default wherever the address is not OpenAI's own
            http_client=client,
            http_async_client=async_client,
        )
        # Who gives up does so on a service that has fallen silent: it can then never count as sent
        # whole what its client did not wait for, and the check can ask for equality.
        silent = model.bind(extra_headers={"x-simulate": "stall"})
        patient = model.with_retry(
            retry_if_exception_type=(openai.OpenAIError,),
            exponential_jitter_params={"max": 0.25},
        )
        pipelines = {
            "answer": ask | patient | StrOutputParser(),
            "wait": ask | _impatient(silent),
            # No parser: LangChain reads a model to its end, silently, for whoever leaves a sync
            # stream with a parser after the model (it drains the parser's input for its tracers).
            "glance": ask | silent,
        }
        for pipeline, chain in pipelines.items():
            chains[name, pipeline] = chain.with_config(run_name=pipeline)
    return chains


def _impatient(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """A step that gives its model up after `PATIENCE`; no callback reports the end of that run."""
    from langchain_core.runnables import RunnableLambda

    async def impatient(messages: Any, config: Any) -> Any:
        async with asyncio.timeout(PATIENCE):
            return await model.ainvoke(messages, config)

    return RunnableLambda(impatient)


def _close(job: _Job, truth: Truth | None, json: str | None) -> int:
    """Print the report and, given the truth, the check; write the file; return the exit code."""
    code = 0
    table = job.snapshot.table(output.terminal_width(job.out))
    output.show(f"{job.done} calls in {job.seconds:.1f} s\n\n{table}\n", job.out)
    if truth is None:
        output.show("Interrupted: this is the report so far, without the closing check.", job.out)
        code = 130
    elif not _check(job.snapshot, truth, sum(call.gives_up for call in job.todo), job.out):
        code = 1
    if json is not None:
        failure = output.write_file(Path(json), job.snapshot.to_json() + "\n")
        if failure is not None:
            output.complain(f"langmeter demo: {failure}")
            code = code or 1
    return code


def _write_report(job: _Job, file: str) -> int:
    """Write the HTML report and say where it is; returns 1 where that fails."""
    from langmeter.report import html

    page = html.report(job.snapshot, title="langmeter demo")
    if failure := output.write_file(Path(file), page):
        output.complain(f"langmeter demo: {failure}")
        return 1
    output.show(f"Report: {Path(file).absolute()}", job.out)
    return 0


def _check(snapshot: Snapshot, truth: Truth, gave_up: int, out: TextIO) -> bool:
    """Hold the meter's figures against what the service says it sent; print the verdict."""
    wrong = list(_differences(snapshot, truth, gave_up))
    sent = truth.sent("ok")
    refused, failed, broken = (
        truth.sent(outcome).calls for outcome in ("rate_limited", "server_error", "broken")
    )
    output.show(
        f"Check: the service sent {sent.input + sent.output:,} tokens in {sent.calls} completed "
        f"calls; it failed {refused + failed + broken} (429: {refused}, 500: {failed}, broken off: "
        f"{broken}); {gave_up} clients gave up.",
        out,
    )
    if not wrong:
        output.show(
            "       langmeter counted exactly that, by model, cached and reasoning tokens too.", out
        )
    for line in wrong:
        output.show(f"       WRONG: {line}", out)
    return not wrong


def _differences(snapshot: Snapshot, truth: Truth, gave_up: int) -> Iterator[str]:
    """Return the figures in which meter and service differ, one line each."""
    from langmeter.snapshot import Tokens

    stats = snapshot.models
    for name in sorted(truth.models):
        sent = truth.sent("ok", model=name)
        rows = [row for (_, model), row in stats.items() if model == name]
        tokens = sum((row.tokens for row in rows), start=Tokens())
        for what, expected, counted in (
            ("completed calls", sent.calls, sum(row.outcomes["ok"] for row in rows)),
            # Without what the meter estimated for streams cut short: the service did not send it.
            ("tokens", sent.input + sent.output, tokens.total - tokens.estimated),
            ("cached tokens", sent.cache_read, tokens.cache_read),
            ("reasoning tokens", sent.reasoning, tokens.reasoning),
        ):
            if counted != expected:
                yield f"{name}: {what}: sent {expected:,}, counted {counted:,}"
    outcomes = [row.outcomes for row in stats.values()]
    failed = truth.sent("rate_limited", "server_error", "broken").calls
    for what, names, expected in (
        ("failed calls", ("error",), failed),
        ("clients that gave up", ("cancelled", "abandoned"), gave_up),
    ):
        counted = sum(row[name] for row in outcomes for name in names)
        if counted != expected:
            yield f"{what}: {expected}, counted {counted}"

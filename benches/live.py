"""`python -m benches live [--smoke]`: what the live page costs, beside the targets.

200 series: 140 models of 7 providers with 60 teams. The source makes a call in each series at each
reading, and its own time is not counted. One viewer looks, in Chromium where there is one.
"""

from __future__ import annotations

import argparse
import random
import time
from uuid import UUID

from tests.support.browser import browser, why_not

from benches.report import conditions
from langmeter import Snapshot, _core
from langmeter.report import live

MODELS, TEAMS = 140, 60
#: Share of a core, and milliseconds of a frame.
CORE, FRAME = 0.02, 50.0


class Busy:
    """A source in which each series changes from one reading to the next."""

    def __init__(self) -> None:
        self._recorder = _core.Recorder(max_series=512, max_runs=64)
        self._rng, self._run = random.Random(1), 0
        self.readings, self.own = 0, 0.0
        for _ in range(20):
            self._calls()

    def _calls(self) -> None:
        for number in range(MODELS):
            self._run += 1
            run = UUID(int=self._run)
            labels = [("team", f"team-{number % TEAMS}")]
            names = (f"provider-{number % 7}", f"model-{number}")
            self._recorder.run_started(run, None, 0, "chat", *names, labels=labels)
            self._recorder.token(run)
            tokens = self._rng.randrange(100, 9000)
            usage = (tokens, 100, tokens + 100, *[0] * 16)
            failed = self._rng.random() < 0.02
            self._recorder.run_ended(run, 0, int(failed), usage=usage, cost=tokens * 10**6)

    def snapshot(self) -> Snapshot:
        """Return the figures after another call in each series."""
        begun = time.thread_time()
        self._calls()
        self.own += time.thread_time() - begun
        self.readings += 1
        return Snapshot(self._recorder.snapshot())


def main(arguments: list[str]) -> None:
    """Print both figures."""
    parser = argparse.ArgumentParser(prog="python -m benches live")
    parser.add_argument("--smoke", action="store_true", help="a few seconds, without judging")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args(arguments)
    seconds = 3.0 if options.smoke else options.seconds
    print(f"{MODELS + TEAMS} series, a viewer for {seconds:g} s. {conditions()}.")
    if reason := why_not():
        print(f"not measured: {reason}")
        return
    from playwright.sync_api import sync_playwright

    source = Busy()
    with (
        live.start(source, 0) as server,
        sync_playwright() as playwright,
        browser(playwright) as chromium,
    ):
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        session = page.context.new_cdp_session(page)
        page.goto(server.url)
        page.wait_for_selector("#models tbody tr")
        page.evaluate(
            "() => { window.long = []; new PerformanceObserver((list) => window.long.push("
            "...list.getEntries().map((task) => task.duration))).observe({type: 'longtask'}); }"
        )
        time.sleep(3.0)  # lines and tables have settled
        # CPU of the main thread: a neighbour on the machine does not count.
        session.send("Performance.enable", {"timeDomain": "threadTicks"})

        def busy() -> float:
            metrics = session.send("Performance.getMetrics")["metrics"]
            return next(row["value"] for row in metrics if row["name"] == "TaskDuration")

        page.evaluate("() => { window.long.length = 0; }")
        task, readings = busy(), source.readings
        # The loop of playwright runs in this process: it sleeps meanwhile.
        cpu, own, begun = time.process_time(), source.own, time.perf_counter()
        time.sleep(seconds)
        cpu, own = time.process_time() - cpu, source.own - own
        lasted = time.perf_counter() - begun
        frames = source.readings - readings
        each = 1000 * (busy() - task) / max(frames, 1)
        longest = max(page.evaluate("() => window.long"), default=0.0)
        rows = page.locator("#models tbody tr").count()
    share = (cpu - own) / lasted
    print(f"readings: {frames} in {lasted:.1f} s; rows by model shown: {rows}")
    for what, figure, target, holds in (
        ("server, share of a core", f"{share:.2%}", f"{CORE:.0%}", share < CORE),
        ("browser, CPU of a frame", f"{each:.1f} ms", f"{FRAME:g} ms", each < FRAME),
        ("browser, longest task", _longest(longest), f"{FRAME:g} ms", longest < FRAME),
    ):
        verdict = "" if options.smoke else "holds" if holds else "MISSED"
        print(f"{what:<26} {figure:>14}  under {target:<6} {verdict}")


def _longest(milliseconds: float) -> str:
    """Format it; the browser tells only of tasks of 50 ms and more."""
    return f"{milliseconds:.0f} ms" if milliseconds else "under 50 ms"


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])

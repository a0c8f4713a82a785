"""A manager in a forked child, and one that is collected."""

from __future__ import annotations

import copy
import gc
import subprocess
import sys
from weakref import ref

import pytest

from langmeter import Meter, ProviderManager
from tests.support.chats import ScriptedChat

SCRIPT = """
import os, signal, threading, time
from langmeter import Meter, ProviderManager
from tests.support.chats import ScriptedChat

meter = Meter()
models = {"a": ScriptedChat(script=[ConnectionResetError()]), "b": ScriptedChat(text="b")}
manager = ProviderManager(models, meter=meter, policy="fastest", refresh=0.02)
manager.invoke("hello")
manager.refresh()
router = manager._router
locks = [router.log._lock, *(p.circuit._lock for p in router.providers.values())]
ready = threading.Event()

def hold():
    for lock in locks:
        lock.acquire()
    ready.set()
    time.sleep(30)

threading.Thread(target=hold, daemon=True).start()
ready.wait()
if child := os.fork():
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status))
signal.alarm(20)
for _ in range(10):
    manager.invoke("hello")
deadline = time.monotonic() + 10
while router.live.snapshot.totals.calls != 10 and time.monotonic() < deadline:
    time.sleep(0.01)
os._exit(0 if router.live.snapshot.totals.calls == 10 else 3)
"""


@pytest.mark.process
def test_a_forked_child_goes_on_with_its_own_figures() -> None:
    """Locks that another thread held are free, and the figures are those of the child."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT], check=False, timeout=60)
    assert done.returncode == 0


def test_a_copy_shares_the_health_of_its_manager() -> None:
    """Shallow or deep: a circuit that opened is open for both."""
    manager = ProviderManager({"a": ScriptedChat()})
    for twin in (copy.copy(manager), copy.deepcopy(manager), manager.model_copy()):
        assert twin.invoke("hello").content == "fine"
    assert manager.decisions == {("a", "policy"): 3}


def test_a_manager_that_is_dropped_is_collected() -> None:
    """With its models and its periodic task; nothing of langmeter keeps it."""
    meter = Meter()
    manager = ProviderManager({"a": ScriptedChat()}, meter=meter)
    manager.invoke("hello")
    live = ref(manager._router.live)
    del manager
    gc.collect()
    assert live() is None

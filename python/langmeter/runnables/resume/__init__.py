"""`resume`: a stream that breaks in the middle starts again, and goes on where it was."""

from langmeter.runnables.resume.replay import Restart, restart_of
from langmeter.runnables.resume.runnable import resume

__all__ = ["Restart", "restart_of", "resume"]

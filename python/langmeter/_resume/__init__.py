"""`resume`: a stream that breaks in the middle starts again, and goes on where it was."""

from langmeter._resume.runnable import resume
from langmeter._resume.splice import Restart, restart_of

__all__ = ["Restart", "restart_of", "resume"]

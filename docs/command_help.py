"""A directive that shows what `langmeter COMMAND --help` prints, so that the page never lags."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx


class CommandHelp(Directive):
    """`{command-help} run` is replaced with the help of `langmeter run`, 80 columns wide."""

    optional_arguments: ClassVar[int] = 1

    def run(self) -> list[nodes.Node]:
        """Return the help as one literal block."""
        command = [sys.executable, "-m", "langmeter", *self.arguments, "--help"]
        environ = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
        text = subprocess.run(
            command, env=environ, capture_output=True, text=True, check=True
        ).stdout.rstrip()
        block = nodes.literal_block(text, text)
        block["language"] = "none"
        return [block]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}

"""`python -m langmeter` is the command `langmeter`."""

from __future__ import annotations

import sys

from langmeter.cli import main

sys.exit(main())

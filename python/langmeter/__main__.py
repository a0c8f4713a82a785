"""`python -m langmeter` is the command `langmeter`."""

from __future__ import annotations

import sys

from langmeter.cli.main import main

sys.exit(main())

"""Usage of model calls: any LangChain response into one `Usage`.

Pure functions over whatever LangChain hands to a callback; nothing of langchain is imported.
`read` is for the end of a run, `requested` for its start.
"""

from __future__ import annotations

from langmeter.usage.reader import read
from langmeter.usage.requested import requested
from langmeter.usage.token_counters import Source, TokenCounter
from langmeter.usage.types import LIMIT, NOTHING, Reading, Usage

__all__ = ["LIMIT", "NOTHING", "Reading", "Source", "TokenCounter", "Usage", "read", "requested"]

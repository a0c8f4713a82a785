"""A pool of processes that write one database: `python examples/history_pool.py metrics.db`.

Each process has a meter and writes rows of its own, the last ones when it ends. SQLite serves the
processes of one host; several hosts name a PostgreSQL.
"""

import sys
from concurrent.futures import ProcessPoolExecutor

from langchain_openai import ChatOpenAI

from langmeter import install
from langmeter.history import History
from langmeter.testing.simulator import Simulator


def begin(database: str) -> None:
    """Meter every call of this process."""
    install(history=database)


def ask(url: str, number: int) -> int:
    """Ask a question in one of the processes; returns the length of the answer."""
    model = ChatOpenAI(model="gpt-4o-mini", base_url=url, api_key="loopback", max_retries=5)
    return len(str(model.invoke(f"What is {number} + {number}?").content))


def main(database: str) -> None:
    """Ask twelve questions in three processes, and print what the database has by then."""
    pool = ProcessPoolExecutor(3, initializer=begin, initargs=(database,))
    with Simulator(speed=20) as service, pool:
        list(pool.map(ask, [service.url] * 12, range(12)))
    for row in History(database).query("calls", by="model"):
        print(f"{row.labels['model']}: {row.value:.0f} calls")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "metrics.db")

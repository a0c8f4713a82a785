"""A small pipeline on the real OpenAI client, against the simulator on loopback.

`langmeter run examples/pipeline.py 20` meters it without a change.
"""

import sys

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

from langmeter.testing.simulator import Simulator


def main(questions: int) -> None:
    """Ask as many questions and print the length of each answer."""
    with Simulator(speed=20) as service:
        model = ChatOpenAI(
            model="gpt-4o-mini",
            base_url=service.url,
            api_key="loopback",
            stream_usage=True,
            max_retries=5,
        )
        chain = ChatPromptTemplate.from_template("Answer: {question}") | model | StrOutputParser()
        for i in range(questions):
            answer = "".join(chain.stream({"question": f"What is {i} + {i}?"}))
            print(f"{i}: {len(answer)} characters")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)

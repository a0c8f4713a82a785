"""The unit tests of LangChain and LangGraph themselves, with a meter installed."""

"""LangChain handlers: thin, and every event of theirs one call into the recorder.

`base` binds a handler to its recorder and counts model calls; the six public classes are views of
that recorder, each in a module of its own.
"""

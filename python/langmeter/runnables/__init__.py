"""Wrappers of LangChain objects: streams that resume, embeddings that are metered, middleware."""

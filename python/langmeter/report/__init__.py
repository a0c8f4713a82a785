"""Snapshots for people: on the terminal, and as an HTML page."""

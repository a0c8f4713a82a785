"""Snapshots for people: on the terminal."""

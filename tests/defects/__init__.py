"""Attempts at defects."""

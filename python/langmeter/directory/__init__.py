"""Directories of meters: each process counts into a file of its own, and any of them reads all."""

from langmeter.directory.folding import Folding, fold
from langmeter.directory.options import DirectoryOptions
from langmeter.directory.reading import Directory

__all__ = ["Directory", "DirectoryOptions", "Folding", "fold"]

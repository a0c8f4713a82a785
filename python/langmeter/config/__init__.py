"""Settings of a recorder, and where each comes from: keywords, the environment, a TOML file."""

from langmeter.config.labels import checked_labels
from langmeter.config.origins import RANGES
from langmeter.config.settings import Config

__all__ = ["RANGES", "Config", "checked_labels"]

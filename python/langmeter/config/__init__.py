"""Settings of a recorder, and where each comes from: keywords, the environment, a TOML file."""

from langmeter.config.settings import RANGES, Config

__all__ = ["RANGES", "Config"]

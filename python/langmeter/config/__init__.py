"""Configuration of a meter, and where each setting comes from.

Rooms: `settings` (the configuration) · `origins` (environment and files) · `toml` (lines of a file)
· `schema` (values checked by pydantic; the JSON schema) · `labels`. To add a group, give its option
class rules (`langmeter._base.options`) and add one field to `MeterConfig`.
"""

from langmeter.config.labels import Label, Labels, checked_labels, keys_of
from langmeter.config.origins import Origin, find_file
from langmeter.config.settings import MeterConfig

__all__ = [
    "Label",
    "Labels",
    "MeterConfig",
    "Origin",
    "checked_labels",
    "find_file",
    "keys_of",
]

"""Configuration of a meter, and where each setting comes from.

Rooms: `settings` (the configuration) · `origins` (environment and files) · `toml` (lines of a file)
· `schema` (values checked by pydantic; the JSON schema) · `labels`. To add a group, give its option
class rules (`langmeter._base.options`) and add one field to `MeterConfig`.
"""

from langmeter.config.labels import checked_labels
from langmeter.config.origins import Origin, find_file
from langmeter.config.settings import MeterConfig

__all__ = ["MeterConfig", "Origin", "checked_labels", "find_file"]

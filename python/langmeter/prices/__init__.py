"""Costs of calls: `PriceBook` finds a model's `RateCard`, which turns counts into pico-dollars.

Rooms: `book` (questions and answers) · `card` (rates and arithmetic) · `catalogue` (genai-prices) ·
`own` and `litellm` (users' prices) · `options` (the setting) · `explain`.
"""

from .book import PriceBook
from .card import Band, RateCard, usd
from .explain import Explanation
from .options import PRICES

__all__ = ["PRICES", "Band", "Explanation", "PriceBook", "RateCard", "usd"]

"""What calls cost: `PriceBook` finds a model's `RateCard`, which turns counts into pico-dollars.

Rooms: `book` (questions and answers) · `card` (rates and arithmetic) · `catalogue` (genai-prices) ·
`own` and `litellm` (users' prices) · `names` (providers) · `explain`.
"""

from .book import PriceBook
from .card import Band, RateCard, usd
from .explain import Explanation

__all__ = ["Band", "Explanation", "PriceBook", "RateCard", "usd"]

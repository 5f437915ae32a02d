"""How a job reports its progress, whoever listens."""

from collections.abc import Callable
from typing import Any

Reporter = Callable[[str, dict[str, Any]], None]
"""Called with a line for a person and the same as values for a plot (or {})."""

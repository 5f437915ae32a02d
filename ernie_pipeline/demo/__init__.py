"""The embedded default: generated problems, and a small ERNIE-4.5-MoE checkpoint that was pre-trained for them."""

from pathlib import Path

BASE = Path(__file__).parent / "base"
"""The checkpoint folder in the package: what `base_model.name = "demo"` stands for."""

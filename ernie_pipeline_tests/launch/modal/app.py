"""Where the app is."""

from pathlib import Path

ROOT = Path(__file__).parents[3]
APP = ROOT / "deploy" / "modal_app.py"

"""The assets, one file each, in the order of the chain. They ask the store, call what does the work, and report."""

import warnings

from dagster import BetaWarning

# twice on every command, and there is no other decorator that observes
warnings.filterwarnings("ignore", "Function `observable_source_asset`", BetaWarning)

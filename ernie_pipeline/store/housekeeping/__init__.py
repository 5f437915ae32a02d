"""Looking after the store: what is in it and what for, whether it is intact, and removing what nothing needs."""

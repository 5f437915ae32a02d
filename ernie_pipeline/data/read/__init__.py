"""From the source to checked rows."""

"""From the source (file, hub or demo) at a fixed version to checked rows and broken ones; and the benchmark sets."""

"""What the assets' pages show of their artifacts: one file a page, and the tables and pictures that they share."""

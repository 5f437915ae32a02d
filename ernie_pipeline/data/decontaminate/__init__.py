"""Rows that share words with a benchmark or with our own evaluation rows."""

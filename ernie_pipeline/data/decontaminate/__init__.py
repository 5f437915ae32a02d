"""Rows that ask what a benchmark question asks, or one of our own evaluation rows, are dropped: overlap.py says how."""

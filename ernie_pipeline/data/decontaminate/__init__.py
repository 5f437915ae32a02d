"""Rows that share a run of words with a benchmark question, or with our own evaluation rows, are dropped."""

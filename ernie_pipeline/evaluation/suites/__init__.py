"""Suites: sets of problems that both models answer, greedily and sampled; what the answers say, and side by side."""

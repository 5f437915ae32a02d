"""Evaluation: what the models answered, which of it is right, and how sure that is."""

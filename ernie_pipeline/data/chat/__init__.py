"""Rows as the model sees them: the chat template's texts (template.py), and their length in tokens (tokens.py)."""

"""Rows as the model sees them."""

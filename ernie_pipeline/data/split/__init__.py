"""Training and evaluation rows."""

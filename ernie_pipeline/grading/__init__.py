"""Whether an answer is right: asked by evaluation, by what keeps right solutions, and by training as its reward."""

LIBRARIES = ("mpmath",)
"""The distributions that decide it."""

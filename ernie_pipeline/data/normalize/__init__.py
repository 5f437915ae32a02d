"""Texts and answers in one form, and what follows from them: words, kinds, row ids."""

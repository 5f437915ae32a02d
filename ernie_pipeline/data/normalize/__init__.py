"""Texts and answers in one form, and what follows from it: words, kinds of answer, row ids."""

"""How a registered model answers many at once: what is asked is checked first, what waits is answered in batches.

It is stored beside every registered model, which runs it wherever MLflow loads it.
"""

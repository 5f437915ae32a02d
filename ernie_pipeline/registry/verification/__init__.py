"""Is this the model that was measured: its files, its signature, the chain that it came from, figures and answers."""

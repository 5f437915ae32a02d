"""Which samples make up each optimizer step, and how they lie in memory."""

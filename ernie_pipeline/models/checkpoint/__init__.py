"""A checkpoint on disk: which one a name means, its tokenizer, and the adapter's file."""

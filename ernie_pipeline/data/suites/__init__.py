"""A suite's problems: read, in the base model's chat template, and held against the training rows."""

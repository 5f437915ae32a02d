"""The trainer's own process: rows and a base model in, an adapter out. It knows of Dagster only the pipe to it."""

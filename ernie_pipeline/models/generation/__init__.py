"""Answers of a model: in batches by transformers, or all at once from merged weights, by captured CUDA graphs."""

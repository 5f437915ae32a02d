"""From raw rows to training and evaluation tables: pure functions on Polars frames.

source.py (which version) -> make_raw.py, which composes lines.py, decode.py, rows.py, read.py and chunks.py
-> split_job.py, the split's own process -> make_split.py, which composes identity.py, answers.py, kinds.py, filters/,
verifiable.py, template.py, tokens.py, near_duplicates.py, decontaminate.py (against benchmark_sets.py) and split.py,
and accounts for it in ledger.py and profile.py. contract.py says what the tables must be, parquet.py writes the same
bytes for the same table.
"""

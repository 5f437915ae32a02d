"""From the source's rows to the tables that are trained and evaluated on. A row's walk, folder by folder:

`make_raw.py`, the asset `raw_nemotron`:
- read/          a line of the source becomes a checked row, or a broken row with its problem.

`make_split.py`, the asset `math_split` (in a process of its own: `job.py`):
- normalize/     its id is a hash of its content; the answer loses `\\( \\)` and `\\boxed{}`, and gets a kind.
- filter/        each filter answers keep, or drop with a reason; last the answers that math-verify cannot parse.
- chat/          the chat template makes prompt text and completion text of it; what is too long goes.
- dedup/         of exact duplicates one stays (one of the filters), and of near duplicates one.
- decontaminate/ what asks what a benchmark question asks goes; later, what asks what our evaluation rows ask.
- split/         what is left is shuffled by the seed and divided: train, evaluation, unused.
- tables/        the contract of every table; the ledger, in which each row stands once; the profile for people.
"""

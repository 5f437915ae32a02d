import json

import polars as pl

from ernie_pipeline.data.tables.profile import make_profile, profile_markdown, spread


def part(*tokens: int, kind: str = "integer") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "question": [f"What | is\n {n}?" for n in tokens],
            "answer": [f"`{n}`" for n in tokens],
            "kind": [kind] * len(tokens),
            "tokens": pl.Series(tokens, dtype=pl.UInt32),
        }
    )


LEDGER = pl.DataFrame(
    {
        "line": range(1, 9),
        "place": ["train"] * 3 + ["evaluation", "unused"] + ["dropped"] * 3,
        "filter": [None] * 5 + ["proof", "proof", "link"],
        "reason": [None] * 5 + ["asks for a proof"] * 2 + ["x" * 300],
        "question": [None] * 5 + ["Prove it.", "Prove that.", "See http://x"],
    }
)
COUNTS = {"proof": 2, "never": 0, "link": 1}
TRAIN, HELD_OUT = part(20, 33, 5000), part(64, kind="text")
PROFILE = make_profile(TRAIN, HELD_OUT, [TRAIN["tokens"], HELD_OUT["tokens"]], LEDGER, COUNTS)


def test_rows_lengths_and_kinds_are_counted() -> None:
    assert PROFILE["places"] == {"dropped": 3, "evaluation": 1, "train": 3, "unused": 1}
    tokens = PROFILE["tokens"]["train"]
    assert (tokens["rows measured"], tokens["mean"], tokens["median"], tokens["longest"]) == (3, 1684.3, 33, 5000)
    assert tokens["histogram"] == {"1 to 32": 1, "33 to 64": 1, "over 4096": 1}
    assert PROFILE["tokens"]["evaluation"]["histogram"] == {"33 to 64": 1}  # a bin holds its upper end
    assert PROFILE["kinds"] == {"integer": {"train": 3, "evaluation": 0}, "text": {"train": 0, "evaluation": 1}}


def test_the_profile_is_plain_json() -> None:
    assert json.loads(json.dumps(PROFILE)) == PROFILE


def test_samples_of_each_filter_that_dropped_anything_are_shown() -> None:
    assert [row["line"] for row in PROFILE["first_dropped"]] == [6, 7, 8]


def test_the_markdown_has_the_figures_and_no_cell_breaks_its_table() -> None:
    text = profile_markdown(PROFILE)
    assert "| proof | 2 |" in text
    assert "| never |" not in text
    assert "| mean | 1,684.3 | 64.0 |" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert "| `What ¦ is 20?` | `'20'` | `integer` |" in tables
    assert max(map(len, tables)) < 420


def test_nothing_dropped_is_said() -> None:
    kept = LEDGER.filter(pl.col("place") != "dropped")
    assert "## Samples that were dropped\n\nnone" in profile_markdown(
        make_profile(TRAIN, TRAIN, [TRAIN["tokens"]] * 2, kept, {})
    )


def test_a_sample_is_spread_over_the_whole() -> None:
    rows = pl.DataFrame({"n": range(1000)})
    assert spread(rows, 4)["n"].to_list() == [0, 250, 500, 750]
    assert spread(rows, 600)["n"][-1] == 998
    assert spread(rows, 1000).equals(rows)
    assert spread(rows, 5000).equals(rows)
    assert spread(rows[:0], 5).is_empty()

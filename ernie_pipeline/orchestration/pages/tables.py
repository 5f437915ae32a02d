"""Tables as a page shows them: numbers as people write them, and no wider than the page at 1440 pixels."""

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from ernie_pipeline.orchestration.pages.sketch import LIMIT
from ernie_pipeline.orchestration.words import figure
from ernie_pipeline.utils.shares import percent, points_between

CUT = 110
"""Characters of a cell; Dagster breaks its lines at about 25."""
SHARES = ("accuracy", "share", "rate", "solved", "truncated", "unboxed", "unended", "timeout")
"""What a metric that is a share in [0, 1] has in its name."""


def table(rows: Iterable[Mapping[str, Any]], cut: int = CUT) -> dg.TableMetadataValue:
    """Rows of plain values as a table on the asset's page; texts of more than `cut` characters are cut."""
    shown = [{name: cell(value, cut) for name, value in row.items()} for row in rows]
    columns = list(shown[0]) if shown else []
    return dg.MetadataValue.table(
        records=[dg.TableRecord(row) for row in shown],
        schema=dg.TableSchema([dg.TableColumn(name, "string") for name in columns]),
    )


def cell(value: Any, cut: int = CUT) -> str:
    """A value as it stands in a table."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return figure(value)
    text = " ".join(str(value).split())
    return text if len(text) <= cut else f"{text[: cut - 1]}…"


def metric(name: str, value: float) -> str:
    """A metric by its name: "73.4 %" of a share, else its figure; a whole number as one."""
    if any(word in name.split("_") for word in SHARES) and 0 <= value <= 1 and not isinstance(value, int):
        return percent(value)
    return figure(int(value) if float(value).is_integer() else value)


def metrics_table(metrics: Mapping[str, Any]) -> dg.TableMetadataValue:
    """A line for each number; the ends of an interval, `x_low` and `x_high`, stand in the line of `x`."""
    rows = []
    for name, value in metrics.items():
        if isinstance(value, int | float) and not name.endswith(("_low", "_high")):
            low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
            interval = "" if low is None or high is None else f"{metric(name, low)} to {metric(name, high)}"
            rows.append({"metric": name.replace("_", " "), "value": metric(name, value), "95 % interval": interval})
    return table(rows)


def gains(rows: Iterable[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Rows with `base`, `adapter`, `gain` and its interval, `low` to `high`, shares all, behind what names them."""
    return table(
        {
            **{name: value for name, value in row.items() if name not in ("base", "adapter", "gain", "low", "high")},
            "base": percent(row["base"]),
            "adapter": percent(row["adapter"]),
            "gain in points (95 %)": f"{100 * row['gain']:+.1f} ({points_between(row['low'], row['high'])})",
        }
        for row in rows
    )


def texts(entries: Iterable[tuple[str, str]]) -> dg.MarkdownMetadataValue:
    """Whole texts, each with its heading, as they were written: always behind a link, for their lines are long."""
    parts = [f"**{heading}**\n\n```\n{body.replace('```', '` ` `')}\n```" for heading, body in entries]
    return dg.MetadataValue.md("\n\n".join(parts).ljust(LIMIT))

"""The recipe's word for where a reference answer stands in its column, in `[source]` and `[suites.NAME]` alike."""

import re

EXTRACT = (
    'where the answer stands in its column: "boxed", "after ####", or a regular expression, the last match of which '
    "counts (its group 1, if it has one)"
)
"""What the key `extract` means."""


def what_is_wrong(extract: str) -> str:
    """Why an `extract` is neither "boxed" nor "after MARK" nor a regular expression, in a clause; "" if it is one."""
    if extract.startswith("after") and not extract.removeprefix("after").strip():
        return 'names no mark; write one behind it, such as "after ####"'
    try:
        re.compile(extract)
    except re.error as error:
        return f'is neither "boxed" nor "after ####" nor a regular expression ({error})'
    return ""

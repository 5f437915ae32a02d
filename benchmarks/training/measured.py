"""What a RESULT line says of how its figures were made, so that `regressions.py` can set rows side by side."""

import argparse
import datetime
import subprocess
from pathlib import Path

NOT_NAMED = {"checkpoint", "home", "commit"}
"""Arguments that say where something lies, and not what is measured."""


def add_commit(parser: argparse.ArgumentParser) -> None:
    """The option for a copy of the files without their history."""
    parser.add_argument("--commit", help="what is measured, where git does not say it")


def measured(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> dict[str, str]:
    """`run`: the script and the options that are not their defaults; `commit` and `date`."""
    given = {
        name: value
        for name, value in vars(asked).items()
        if name not in NOT_NAMED and value != parser.get_default(name)
    }
    options = [f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}") for name, value in given.items()]
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"run": " ".join([parser.prog, *options]), "commit": asked.commit or _commit(), "date": today}


def _commit() -> str:
    """The commit of this file's repository, with a + where files differ from it; "unknown" where git does not say."""
    command = ["git", "describe", "--always", "--exclude=*", "--dirty=+"]
    found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else "unknown"

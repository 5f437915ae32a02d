"""`ernie`, and `python -m ernie_pipeline`: see `cli/app.py`."""

import sys


def entry() -> int:
    """Run the command line of this process; its exit status."""
    try:
        from ernie_pipeline.cli.app import main

        return main()
    except SyntaxError as error:  # in a module that a command itself needs
        print(
            f"error: {error.filename}, line {error.lineno} is no Python that can be read: {error.msg}; mend it",
            file=sys.stderr,
        )
        return 1


if __name__ == "__main__":
    sys.exit(entry())

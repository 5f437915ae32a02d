"""`python -m ernie_pipeline`, see `cli/app.py`."""

import sys

try:
    from ernie_pipeline.cli.app import main
except SyntaxError as error:  # in a module that the command itself needs
    sys.exit(f"error: {error.filename}, line {error.lineno} is no Python that can be read: {error.msg}; mend it")

if __name__ == "__main__":
    sys.exit(main())

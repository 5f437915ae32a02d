"""`python -m ernie_pipeline`, see `cli/app.py`."""

import sys

from ernie_pipeline.cli.app import main

if __name__ == "__main__":
    sys.exit(main())

"""The docs' pictures of Dagster's pages.

`python -m ernie_pipeline_tests.orchestration.ui.images URL FOLDER NAME=PATH...`, for example with http://127.0.0.1:3000
docs/images registered-model=/assets/registered_model. Each is a PNG of at most 64 colours.
"""

import sys
import time
from pathlib import Path

from PIL import Image

from ernie_pipeline_tests.orchestration.ui.browser import browser, find_chromium

SETTLED_S = 20.0
"""A page of Dagster's loads in parts."""


def main(url: str, folder: Path, *places: str) -> None:
    """Open each place, wait, and keep what is seen."""
    folder.mkdir(parents=True, exist_ok=True)
    with browser(find_chromium() or sys.exit("there is no Chromium here")) as page:
        for place in places:
            name, _, path = place.partition("=")
            page.open(url + path)
            time.sleep(SETTLED_S)
            file = folder / f"{name}.png"
            page.screenshot(file)
            with Image.open(file) as picture:
                picture.convert("RGB").quantize(64).save(file, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])

"""`python -m bench.report`: docs/performance.md and its pictures, from what a run of the bench found."""

import argparse
import json
from pathlib import Path
from typing import Final

from bench import plots
from bench.page import page

PAGE: Final = Path("docs/performance.md")
FILE: Final = Path("build/bench.json")


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("--json", type=Path, default=FILE, metavar="FILE", help=f"({FILE})")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help=f"({PAGE}); pictures are put beside it")
    options = parser.parse_args()
    report = json.loads(options.json.read_text())
    folder: Path = options.page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    pictures = plots.draw(report, folder)
    fragments = {path.stem: path.read_text() for path in sorted(folder.glob("*.md"))}
    options.page.write_text(page(report, folder.name, pictures, fragments))


if __name__ == "__main__":
    main()

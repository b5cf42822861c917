"""Take the picture of a report that the README shows.

    python scripts/report_picture.py runs/grpo-arithmetic-seed0

Needs a Chromium or Chrome on the PATH; nothing else is started or fetched.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from etude.viewer import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder; its report is written anew")
    parser.add_argument("--out", type=Path, default=Path("docs/images/report.png"))
    parser.add_argument("--width", type=int, default=1200, help="pixels")
    parser.add_argument("--height", type=int, default=1480, help="pixels; what lies below is cut off")
    parser.add_argument("--dark", action="store_true", help="as a reader with a dark desktop sees it")
    given = parser.parse_args()
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"no browser found; looked for {', '.join(BROWSERS)}")
    report = write_report(given.run).resolve()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser,
                "--headless",
                "--disable-gpu",
                "--no-sandbox",
                "--hide-scrollbars",
                f"--user-data-dir={profile}",
                f"--blink-settings=preferredColorScheme={0 if given.dark else 1}",
                f"--window-size={given.width},{given.height}",
                f"--screenshot={given.out.resolve()}",
                report.as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )
    print(given.out)


if __name__ == "__main__":
    main()

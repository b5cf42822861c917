"""The process that one run of a comparison lives in: `python -m etude.evals.arm_process SPECIFICATION.json …`.

A specification names the method, where its class is when no installed package offers it, and the configuration. One without `check` is run, or gone on with when
its folder holds a run; ones with `check` are only set up, one after the other, to see that they could be run. The last line on standard error says what went wrong.
Standard input is held open by the process that started this one: when it closes, that process is gone, and the run stops as after SIGTERM.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from etude.errors import EtudeError

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
ERROR = "error: "
"""What stands before the message on the last line."""


def main(paths: list[str]) -> int:
    """Run or check what the files say; returns the exit code: 0 finished, 1 failed, 2 refused, 130 interrupted."""
    threading.Thread(target=_stop_when_left_alone, daemon=True).start()
    warnings.simplefilter("default")
    try:
        for path in paths:
            specification = json.loads(Path(path).read_text())
            code = _check(specification) if specification["check"] else _run(specification)
            if code:
                return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except EtudeError as error:
        return _failed(str(error), error.exit_code)
    except Exception as error:
        traceback.print_exc()
        return _failed(f"{type(error).__name__}: {error}", FAILED)
    return 0


def _failed(message: str, code: int) -> int:
    print(f"{ERROR}{' '.join(message.split())}", file=sys.stderr, flush=True)
    return code


def _stop_when_left_alone() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _config(specification: dict[str, Any]) -> tuple[str, Any]:
    from etude.method import adopt
    from etude.settings import default_config, merged

    slug: str = specification["method"]
    home: str | None = specification["class"]
    if home is not None:
        sys.path[:] = [*sys.path, *(entry for entry in specification["path"] if entry not in sys.path)]
        module, _, name = home.partition(":")
        adopt(getattr(importlib.import_module(module), name))
    return slug, merged(default_config(slug), specification["config"])


def _run(specification: dict[str, Any]) -> int:
    slug, config = _config(specification)
    from etude.api import resume_run, start_run
    from etude.settings_file import saved_config

    folder = Path(config.run.out)
    # Settings that matter were compared before this process was started; of the others a run that is gone on with keeps its own.
    begun = (folder / "config.yaml").is_file()
    summary = resume_run(folder, saved_config(folder)[1]) if begun else start_run(slug, config)
    return INTERRUPTED if summary.status == "interrupted" else 0


def _check(specification: dict[str, Any]) -> int:
    """Set the method up in a folder that is thrown away, as its run will."""
    slug, config = _config(specification)
    from etude.method import get_method
    from etude.run import Run

    try:
        with tempfile.TemporaryDirectory() as folder:
            config.run = replace(config.run, out=Path(folder) / "run", track=())
            run = Run.create(config.run, folder_name=slug)
            run.seed_libraries("setup")
            get_method(slug)(config, run).setup()
    except EtudeError as error:
        return _failed(f"arm {specification['arm']}: {error}", REFUSED)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A coding agent. `main.py solve` works on a task, `main.py edit` on the agent's own code. It talks to its host in lines of JSON (`host.py`)."""

import sys

from edit import edit
from host import task
from solve import solve

if __name__ == "__main__":
    work = {"solve": solve, "edit": edit}[sys.argv[1]]
    work(task())

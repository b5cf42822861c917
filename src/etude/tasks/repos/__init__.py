"""Software tasks: small real repositories with a fault, actions as text, hidden tests that decide. Versions are git trees, and tests run in the jail only."""

from etude.tasks.repos.environment import RepositoryEnvironment
from etude.tasks.repos.instances import Instance, read_instances
from etude.tasks.repos.store import GitError, GitStore
from etude.tasks.repos.tasks import RepositoryTasks
from etude.tasks.repos.testing import TestReport, TestRunner
from etude.tasks.repos.verdict import Verdict, verdict

__all__ = ["GitError", "GitStore", "Instance", "RepositoryEnvironment", "RepositoryTasks", "TestReport", "TestRunner", "Verdict", "read_instances", "verdict"]

"""Versions of repositories as values: git trees in a private object store, without a work tree on this machine.

A tree id names every file of a version, what is untracked elsewhere included. Reading, searching, editing and patching are functions from trees to trees, so that nothing that
was ever a state can change: a search goes back to one, or forks it, by its id.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from etude.errors import EtudeError, InputError

SECONDS = 60.0
"""What one git command may take."""
IDENTITY = {"GIT_AUTHOR_NAME": "etude", "GIT_AUTHOR_EMAIL": "etude@localhost", "GIT_COMMITTER_NAME": "etude", "GIT_COMMITTER_EMAIL": "etude@localhost"}
EPOCH = {"GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2000-01-01T00:00:00Z"}
"""A fixed date, so that the same files give the same commit."""


class GitError(EtudeError):
    """A git command failed; the message is git's own."""


class GitStore:
    """A bare repository that borrows the objects of others, and writes only to itself.

    source: a git clone (bare or not) or a bundle (`*.bundle`). It is read and never written to. folder: where to keep new objects; a temporary folder by default, which
    `close` removes. Raises InputError without git, and for a source that is none.
    """

    def __init__(self, source: Path | None = None, folder: Path | None = None) -> None:
        if shutil.which("git") is None:
            raise InputError("software tasks need git, and there is no program 'git' here; install it (Debian, Ubuntu: apt-get install git)")
        self._temporary = None if folder is not None else tempfile.TemporaryDirectory(prefix="etude-git-", ignore_cleanup_errors=True)
        self.folder = folder if folder is not None else Path(self._temporary.name if self._temporary else "")
        if not (self.folder / "HEAD").exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.git("init", "--quiet", "--bare", ".")
            # Before what the repository itself says: files come out as they went in, and all of them.
            (self.folder / "info").mkdir(exist_ok=True)
            (self.folder / "info" / "attributes").write_text("* -text -filter -ident -working-tree-encoding -export-ignore -export-subst\n")
        if source is not None:
            self._borrow(source)

    def close(self) -> None:
        """Remove a temporary store."""
        if self._temporary is not None:
            self._temporary.cleanup()

    def _borrow(self, source: Path) -> None:
        if source.suffix == ".bundle":
            if not source.is_file():
                raise InputError(f"there is no git bundle {source}; expected the file that `git bundle create` made")
            try:
                self.git("fetch", "--quiet", str(source.resolve()), "+refs/*:refs/bundle/*")
            except GitError as error:
                raise InputError(f"{source} cannot be read as a git bundle: {error}") from error
            return
        try:
            inside = self.git("-C", str(source), "-c", "safe.directory=*", "rev-parse", "--path-format=absolute", "--git-path", "objects", own=False).strip()
        except (GitError, OSError) as error:
            raise InputError(f"{source} is no git repository ({error}); expected a clone") from error
        (self.folder / "objects" / "info" / "alternates").write_text(f"{inside}\n")

    def git(self, *arguments: str, data: bytes | None = None, index: str | None = None, own: bool = True) -> str:
        """What a git command prints, as text. data: its standard input. index: a private index file. own: in this store. Raises GitError where it fails."""
        return self.run(*arguments, data=data, index=index, own=own).decode("utf-8", "replace")

    def run(self, *arguments: str, data: bytes | None = None, index: str | None = None, own: bool = True, fine: Sequence[int] = (0,)) -> bytes:
        """The same in bytes. fine: exit codes that are no failure."""
        environment = {
            **{"PATH": os.environ.get("PATH", ""), "HOME": str(self.folder), "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull},
            **{"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", **IDENTITY, **EPOCH},
            **({"GIT_DIR": str(self.folder)} if own else {}),
            **({"GIT_INDEX_FILE": index} if index else {}),
        }
        try:
            done = subprocess.run(["git", *arguments], input=data, capture_output=True, check=False, cwd=self.folder, env=environment, timeout=SECONDS)
        except subprocess.TimeoutExpired as error:
            raise GitError(f"git {arguments[0]} took more than {SECONDS:g} seconds") from error
        if done.returncode not in fine:
            said = done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}"
            raise GitError(f"git {arguments[0]}: {said[-500:]}")
        return done.stdout

    # What is there

    def tree_of(self, commit: str) -> str:
        """The tree of a commit (or of a tree). Raises GitError where there is none."""
        return self.git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{tree}}").strip()

    def has(self, tree: str) -> bool:
        """Whether an object is in the store."""
        with contextlib.suppress(GitError):
            self.run("cat-file", "-e", tree)
            return True
        return False

    def paths(self, tree: str) -> list[str]:
        """All files of a tree, in git's order."""
        return [path.decode("utf-8", "surrogateescape") for path in self.run("ls-tree", "-r", "-z", "--name-only", "--full-tree", tree).split(b"\0") if path]

    def read(self, tree: str, path: str) -> bytes:
        """The content of a file. Raises GitError where there is none."""
        return self.run("cat-file", "blob", f"{tree}:{path}")

    def grep(self, tree: str, text: str) -> list[str]:
        """Lines that hold a text, as `path:line:content`. Binary files are left out."""
        found = self.run("grep", "-n", "-I", "-F", "--no-color", "--full-name", "-e", text, tree, fine=(0, 1))
        return [line.removeprefix(f"{tree}:") for line in found.decode("utf-8", "replace").splitlines()]

    def archive(self, tree: str) -> bytes:
        """All files of a tree as a tar archive."""
        return self.run("archive", "--format=tar", tree)

    def diff(self, before: str, after: str, *, context: int = 3, paths: Sequence[str] = ()) -> str:
        """The patch from one tree to another, which `apply` takes; empty where they are equal."""
        return self.git("diff", "--no-color", "--no-ext-diff", "--binary", "--full-index", f"-U{context}", before, after, "--", *paths)

    def changed(self, before: str, after: str) -> list[str]:
        """Files that differ between two trees."""
        return [path for path in self.git("diff", "--name-only", "-z", "--no-renames", before, after).split("\0") if path]

    # What can be made of it

    def commit(self, tree: str, message: str) -> str:
        """A commit of a tree, without parents."""
        return self.git("commit-tree", tree, "-m", message).strip()

    def with_files(self, tree: str | None, files: Mapping[str, bytes | None]) -> str:
        """A tree with some files written anew, or left out (None). The mode of a file that was there is kept. tree=None: from nothing."""
        with self._index(tree) as index:
            entries: list[bytes] = []
            for path, content in files.items():
                name = path.encode("utf-8", "surrogateescape")
                if content is None:
                    entries.append(b"0 " + b"0" * 40 + b"\t" + name)
                    continue
                blob = self._blob(content)
                mode = self._mode(tree, path) if tree else "100644"
                entries.append(f"{mode} {blob}\t".encode() + name)
            self.run("update-index", "-z", "--add", "--index-info", data=b"".join(entry + b"\0" for entry in entries), index=index)
            return self.git("write-tree", index=index).strip()

    def with_files_of(self, tree: str, other: str, paths: Sequence[str]) -> str:
        """A tree with some files as they are in another one, or not there where it has none of that name."""
        there = set(self.paths(other))
        return self.with_files(tree, {path: self.read(other, path) if path in there else None for path in paths})

    def apply(self, tree: str, patch: str) -> str:
        """A tree with a patch applied. Raises GitError where it does not fit."""
        if not patch.strip():
            return tree
        with self._index(tree) as index:
            text = patch if patch.endswith("\n") else f"{patch}\n"
            self.run("apply", "--cached", "--whitespace=nowarn", "-", data=text.encode("utf-8", "surrogateescape"), index=index)
            return self.git("write-tree", index=index).strip()

    def from_folder(self, folder: Path) -> str:
        """The tree of a folder of files, hidden and ignored ones included."""
        with self._index(None) as index:
            self.run("--work-tree", str(folder.resolve()), "-C", str(folder.resolve()), "add", "--all", "--force", ".", index=index)
            return self.git("write-tree", index=index).strip()

    @contextlib.contextmanager
    def _index(self, tree: str | None) -> Iterator[str]:
        """A private index that holds a tree."""
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="index-") as folder:
            index = os.path.join(folder, "index")
            if tree:
                self.run("read-tree", tree, index=index)
            yield index

    def _blob(self, content: bytes) -> str:
        """Write a file's content as git's loose objects are written, which spares a process for each file."""
        data = b"blob %d\0%b" % (len(content), content)
        name = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        place = self.folder / "objects" / name[:2] / name[2:]
        if not place.exists():
            place.parent.mkdir(exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix="blob-", delete=False) as file:
                file.write(zlib.compress(data, 1))
            os.replace(file.name, place)
        return name

    def _mode(self, tree: str, path: str) -> str:
        entry = self.git("ls-tree", "--full-tree", tree, "--", f":(literal){path}")
        mode = entry.split(" ", 1)[0]
        return mode if mode in ("100644", "100755") else "100644"


def plain_path(text: str) -> str:
    """A path inside a repository in its one spelling: `./src//x.py` -> `src/x.py`. Raises InputError for one that leads out of it or into git's own folder."""
    path = PurePosixPath(text.strip().strip("`'\""))
    parts = [part for part in path.parts if part != "."]
    if path.is_absolute() or ".." in parts or any(part.lower() == ".git" for part in parts) or "\0" in text or "\n" in text.strip():
        raise InputError(f"{text.strip()!r} is no path inside the repository; expected one such as src/module.py")
    return "/".join(parts)

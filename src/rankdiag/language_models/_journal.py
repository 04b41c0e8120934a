"""The journal of a run: rows appended as they are computed, so that a run can be killed anywhere and goes on.

A folder holds ``manifest.json``, what the numbers depend on, and for each process ``part-r000-00000.jsonl`` and so on,
one JSON object a line. Whole lines are written with one system call; a line that was cut off by a kill is cut away when
the run goes on. Columns with a vector for each row go to ``<column>.npy``, float32, written before the lines of their
rows.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rankdiag._files import file_path, write_text, written_whole
from rankdiag._optional import optional
from rankdiag._validate import choice, describe, integer
from rankdiag.language_models._columns import Columns

__all__ = ["Journal"]

_ROWS = 1000  # of a part: the next one is begun at the first batch that finds it full
_PART = re.compile(r"part-r(\d{3,})-(\d{5,})\.jsonl")
_INFINITE = {math.inf: "inf", -math.inf: "-inf"}
_FROM_TEXT = {text: value for value, text in _INFINITE.items()}
_OWN = ("key", "index", "status")


class Journal:
    """Rows of one run in a folder, for one process or several.

    Parameters
    ----------
    folder : path
        Made if it does not exist.
    manifest : mapping
        JSON-safe: everything that the numbers depend on. It is written first; a folder that has another one is refused.
        ``n_groups``, the number of rows to come, is needed for columns of vectors.
    rank : int
        Number of this process; each writes parts of its own.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the folder holds the journal of another run (the message names the first field that differs), another process
        is writing to it as this `rank`, or a part is damaged elsewhere than at its end.
    OSError
        If the folder cannot be written to.

    Notes
    -----
    NaN is written as null, infinity as the text ``"inf"`` or ``"-inf"``. A kill at any moment loses at most the batch
    at hand; a power cut at most the part at hand, for a full one is synchronised to the disk.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from rankdiag.language_models import Columns, Journal
    >>> folder = tempfile.mkdtemp()
    >>> rows = Columns(
    ...     keys=("a", "b"), group=np.array([0, 1]), slot=np.zeros(2, int), status=("ok", "ok"),
    ...     values={"score": np.array([0.5, np.nan])},
    ... )
    >>> journal = Journal(folder, {"n_groups": 2})
    >>> journal.append(rows)
    >>> journal.close()
    >>> sorted(Journal(folder, {"n_groups": 2}).done())
    ['a', 'b']
    >>> [row["score"] for row in Journal.read(folder)]
    [0.5, None]
    """

    def __init__(self, folder: str | os.PathLike[str], manifest: Mapping[str, Any], *, rank: int = 0) -> None:
        self._folder = file_path(folder, "folder", "folder")
        self._rank = integer(rank, "rank", low=0)
        self._manifest = _plain(manifest)
        if self._folder.exists() and not self._folder.is_dir():
            raise ValueError(f"`folder` must be that of a journal; {str(self._folder)!r} is a file")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock: int | None = _locked(self._folder, self._rank)
        _agree(self._folder / "manifest.json", self._manifest)
        self._handle: int | None = None
        self._number = -1
        self._rows = 0
        for number, path in _parts(self._folder).get(self._rank, ()):
            self._number = number
            _cut(path)
        if self._number >= 0:
            self._rows = _count(self._path(self._number))
        self._done = {row["key"] for row in _lines(self._folder)}

    def _path(self, number: int) -> Path:
        return self._folder / f"part-r{self._rank:03d}-{number:05d}.jsonl"

    def done(self) -> frozenset[str]:
        """Return the keys of all rows that any process has written."""
        return frozenset(self._done)

    def append(self, columns: Columns) -> None:
        """Write the rows whose keys are not there yet.

        Parameters
        ----------
        columns : Columns
            One entry for each group: numbers, ragged columns (a tuple of one array for each entry), or vectors (a
            two-dimensional array).

        Raises
        ------
        TypeError
            If it is no `Columns`.
        ValueError
            If a key stands twice in it, or vectors come without ``n_groups`` in the manifest.
        OSError
            If the disk is full or gone; what was written before is whole.
        """
        if not isinstance(columns, Columns):
            raise TypeError(f"`columns` must be Columns; got {describe(columns)}")
        if len(set(columns.keys)) != len(columns.keys):
            raise ValueError("`columns` must hold one entry for each group; reduce rows to groups first")
        fresh = [place for place, key in enumerate(columns.keys) if key not in self._done]
        if not fresh:
            return
        scalars = {}
        for name, values in columns.values.items():
            if name in _OWN:
                raise ValueError(f"`columns` must not name a column {name!r}; it is the journal's own")
            if getattr(values, "ndim", 1) == 2:
                self._write_vectors(name, values, columns.group, fresh)
            else:
                scalars[name] = values
        lines = []
        for place in fresh:
            row = {"key": columns.keys[place], "index": int(columns.group[place]), "status": columns.status[place]}
            row.update({name: _cell(values[place]) for name, values in scalars.items()})
            lines.append(json.dumps(row, ensure_ascii=False, allow_nan=False))
        self._write("".join(line + "\n" for line in lines).encode("utf-8", "backslashreplace"))
        self._rows += len(lines)
        self._done.update(columns.keys[place] for place in fresh)

    def note(self, event: Mapping[str, Any]) -> None:
        """Write down something that happened to this run, a forward that did not fit into memory, say.

        Parameters
        ----------
        event : mapping
            JSON-safe; appended to ``events-r000.jsonl``, which no reader of rows looks at.
        """
        line = json.dumps(_plain(event, "event"), ensure_ascii=False) + "\n"
        with (self._folder / f"events-r{self._rank:03d}.jsonl").open("ab") as stream:
            stream.write(line.encode("utf-8", "backslashreplace"))

    def _write(self, data: bytes) -> None:
        if self._lock is None:
            self._lock = _locked(self._folder, self._rank)
        if self._handle is None or self._rows >= _ROWS:
            if self._rows >= _ROWS or self._number < 0:
                self._end_part()
                self._number, self._rows = self._number + 1, 0
            self._handle = os.open(self._path(self._number), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        start = os.fstat(self._handle).st_size
        view = memoryview(data)
        try:
            while len(view):
                view = view[os.write(self._handle, view) :]
        except OSError:
            os.ftruncate(self._handle, start)  # a disk that is full leaves half a batch: the next one must not join it
            raise

    def _write_vectors(self, name: str, values: Any, groups: Any, fresh: list[int]) -> None:
        count = self._manifest.get("n_groups")
        if not isinstance(count, int):
            raise ValueError("`manifest` must say n_groups, how many rows there will be, for columns of vectors")
        array = np.asarray(values, dtype=np.float32)
        path = self._folder / f"{name}.npy"
        if not path.exists():
            _allocate(path, (count, array.shape[1]))
        with path.open("r+b") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, _ = read(stream)
            start = stream.tell()
            if shape != (count, array.shape[1]):
                raise ValueError(f"{path.name} must have shape {(count, array.shape[1])}; it has {shape}")
            for place in fresh:
                os.pwrite(stream.fileno(), array[place].tobytes(), start + int(groups[place]) * array.shape[1] * 4)
            os.fsync(stream.fileno())  # a line that outlives a power cut must not speak of vectors that did not

    def close(self) -> None:
        """Synchronise the part at hand to the disk and close it; the journal may be appended to again."""
        self._end_part()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _end_part(self) -> None:
        if self._handle is not None:
            os.fsync(self._handle)
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- reading ------------------------------------------------------------------------------------------------

    @staticmethod
    def manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
        """Return what the numbers of a journal depend on.

        Parameters
        ----------
        folder : path
            Folder of a journal.

        Returns
        -------
        dict
            What was given when the journal was begun.

        Raises
        ------
        FileNotFoundError
            If there is no journal.
        ValueError
            If the manifest is damaged.
        """
        path = file_path(folder, "folder", "folder") / "manifest.json"
        if not path.exists():
            raise FileNotFoundError(f"`folder` must hold a journal; there is no manifest.json in {str(folder)!r}")
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path.name} of `folder` {str(folder)!r} is damaged: {error}") from None
        return found

    @staticmethod
    def read(folder: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows of all processes, each key once, in the order of the data.

        Parameters
        ----------
        folder : path
            Folder of a journal.

        Yields
        ------
        dict
            ``key``, ``index``, ``status`` and the columns; None where there is no number.

        Raises
        ------
        FileNotFoundError
            If there is no journal.
        ValueError
            If a line is damaged (file and number are named), or two processes wrote different rows for one key.
        """
        _, rows = _collected(file_path(folder, "folder", "folder"))
        for _, line in sorted(rows.values()):
            yield _row(line)

    def merge(self, out: str | os.PathLike[str] | None = None, *, order: Literal["input", "written"] = "input") -> Path:
        """Write the rows of all processes into one file; see `merge_folder`.

        Parameters
        ----------
        out : path, optional
            ``.jsonl`` or ``.parquet``; None takes ``merged.jsonl`` in the folder.
        order : {"input", "written"}
            Of the rows.

        Returns
        -------
        pathlib.Path
            The file.
        """
        return Journal.merge_folder(self._folder, out, order=order)

    @staticmethod
    def merge_folder(
        folder: str | os.PathLike[str],
        out: str | os.PathLike[str] | None = None,
        *,
        order: Literal["input", "written"] = "input",
    ) -> Path:
        """Write the rows of all processes into one file, whole or not at all.

        Parameters
        ----------
        folder : path
            Folder of a journal.
        out : path, optional
            ``.jsonl`` or ``.parquet``; None takes ``merged.jsonl`` in the folder.
        order : {"input", "written"}
            ``"input"``: the order of the data; the file is then the same to the byte however often the run was cut off
            and however many processes wrote. ``"written"``: process after process.

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        FileNotFoundError
            If there is no journal.
        ValueError
            If rows are missing (the message says which), a line is damaged, or two processes wrote different rows for
            one key.
        MissingExtraError
            If pyarrow is missing for ``.parquet``.
        """
        source = file_path(folder, "folder", "folder")
        how = choice(order, "order", ("input", "written"))
        target = source / "merged.jsonl" if out is None else file_path(out, "out")
        if target.suffix.lower() not in {".jsonl", ".parquet"}:
            raise ValueError(f"`out` must end in .jsonl or .parquet; got {str(target)!r}")
        manifest, rows = _collected(source)
        count = manifest.get("n_groups")
        if isinstance(count, int) and len(rows) != count:
            lacking = sorted({*range(count)} - {place for place, _ in rows.values()})
            first = ", ".join(map(str, lacking[:3])) + (", ..." if len(lacking) > 3 else "")
            raise ValueError(
                f"{len(lacking)} of {count} rows are missing in {str(source)!r} (rows {first} of the data); let the "
                "run end first"
            )
        entries = sorted(rows.values()) if how == "input" else list(rows.values())
        lines = [line for _, line in entries]
        if target.suffix.lower() == ".jsonl":
            with written_whole(target) as stream:
                stream.writelines(lines)
        else:
            _write_parquet(target, (_row(line) for line in lines))
        return target


def _plain(manifest: Any, name: str = "manifest") -> dict[str, Any]:
    if not isinstance(manifest, Mapping):
        raise TypeError(f"`{name}` must be a mapping; got {describe(manifest)}")
    try:
        found: dict[str, Any] = json.loads(json.dumps(dict(manifest), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(f"`{name}` must be JSON-safe; {error}") from None
    return found


def _agree(path: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, or compare it with the one that is there."""
    if not path.exists():
        if any(path.parent.glob("part-r*.jsonl")) and not path.exists():  # another process may just have begun
            raise ValueError(f"`folder` {str(path.parent)!r} has rows but no manifest.json; take another folder")
        write_text(path, json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        return
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} of `folder` {str(path.parent)!r} is damaged: {error}") from None
    found = _difference(_nameless(old), _nameless(manifest), "")
    if found is not None:
        name, before, now = found
        raise ValueError(
            f"`folder` {str(path.parent)!r} holds the journal of another run: {name} was {before} and is now {now}. "
            "Take another folder, or go back to what it was"
        )


def _locked(folder: Path, rank: int) -> int | None:
    """Take the lock of one rank of a journal, which goes with the process; None where there are no such locks."""
    try:
        import fcntl
    except ImportError:
        return None
    handle = os.open(folder / f".lock-r{rank:03d}", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if error.errno in {errno.EACCES, errno.EAGAIN}:
            raise ValueError(
                f"`folder` {str(folder)!r} is being written to by another process as rank {rank}; wait for it, or give "
                "each process a rank of its own"
            ) from None
        return None  # a file system that cannot lock
    return handle


def _nameless(manifest: Any) -> Any:
    """Return a manifest without the names of its models, which are paths: their checksums tell them apart."""
    models = manifest.get("models") if isinstance(manifest, dict) else None
    if not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
        return manifest
    kept = [{key: value for key, value in model.items() if key != "name" or "weights" not in model} for model in models]
    return {**manifest, "models": kept}


def _difference(old: Any, new: Any, name: str) -> tuple[str, str, str] | None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            found = _difference(old.get(key), new.get(key), f"{name}.{key}" if name else key)
            if found is not None:
                return found
        return None
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (a, b) in enumerate(zip(old, new, strict=True)):
            found = _difference(a, b, f"{name}[{place}]")
            if found is not None:
                return found
        return None
    return None if old == new else (name or "manifest", json.dumps(old), json.dumps(new))


def _parts(folder: Path) -> dict[int, list[tuple[int, Path]]]:
    """Return the parts of each process, in order."""
    found: dict[int, list[tuple[int, Path]]] = {}
    for path in folder.iterdir():
        match = _PART.fullmatch(path.name)
        if match:
            found.setdefault(int(match[1]), []).append((int(match[2]), path))
    return {rank: sorted(found[rank]) for rank in sorted(found)}


def _cut(path: Path) -> None:
    """Cut away a last line that a kill left without its end."""
    with path.open("r+b") as stream:
        data = stream.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            stream.truncate(whole)


def _count(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def _lines(folder: Path) -> Iterator[dict[str, Any]]:
    for path, number, line in _raw(folder):
        yield _parsed(path, number, line)


def _raw(folder: Path) -> Iterator[tuple[Path, int, bytes]]:
    """Yield the whole lines of all parts; a torn end is what another process is writing, or a kill has left."""
    for parts in _parts(folder).values():
        for _, path in parts:
            with path.open("rb") as stream:
                for number, line in enumerate(stream, 1):
                    if line.endswith(b"\n"):
                        yield path, number, line


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if isinstance(row, dict) and isinstance(row["key"], str) and isinstance(row["index"], int):
            return row
        reason = "no row"
    except (ValueError, KeyError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise ValueError(f"line {number} of {path.name} in `folder` {str(path.parent)!r} is damaged ({reason})")


def _collected(folder: Path) -> tuple[dict[str, Any], dict[str, tuple[int, bytes]]]:
    """Return the manifest, and index and line of every key."""
    manifest = Journal.manifest(folder)
    rows: dict[str, tuple[int, bytes]] = {}
    for part, number, line in _raw(folder):
        row = _parsed(part, number, line)
        before = rows.get(row["key"])
        if before is not None and before[1] != line:
            raise ValueError(
                f"line {number} of {part.name} in {str(folder)!r} differs from another row of the same key "
                f"{row['key']!r}; the processes did not run the same thing"
            )
        rows[row["key"]] = (row["index"], line)
    return manifest, rows


def _row(line: bytes) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(line)
    return {name: value if name in _OWN else _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return _FROM_TEXT.get(value, value)
    return [_value(entry) for entry in value] if isinstance(value, list) else value


def _cell(value: Any) -> Any:
    """Return one number, text or row of numbers as JSON holds it."""
    if isinstance(value, np.ndarray):
        return [_cell(entry) for entry in value.tolist()] if value.ndim else _cell(value.item())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return None if value != value else _INFINITE.get(value, value)
    return value


def _allocate(path: Path, shape: tuple[int, int]) -> None:
    """Make an empty array file, so that of several processes one makes it and none sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
    del array
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links: the last of several processes then wins, before any has written
        if not path.exists():
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_parquet(target: Path, rows: Iterable[dict[str, Any]]) -> None:
    arrow = optional("pyarrow", extra="parquet", feature="writing Parquet")
    parquet = optional("pyarrow.parquet", extra="parquet", feature="writing Parquet")
    table = arrow.Table.from_pylist(list(rows))
    with written_whole(target) as stream:
        parquet.write_table(table, stream)

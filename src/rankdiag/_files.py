"""Writing files whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rankdiag._validate import describe

_LONGEST_NAME = 1000  # characters of one part of a path; no file system has longer ones

__all__ = ["file_path", "write_text", "written_whole"]


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write UTF-8 text so that the file appears complete or keeps what it held before.

    A link is followed, an existing file keeps its permissions, and a device or a pipe is written to directly.
    Half of a surrogate pair, which UTF-8 cannot hold, is written as its escape.

    Parameters
    ----------
    path : str or path-like
        Where the file goes; its folder must exist.
    text : str
        What goes in.

    Returns
    -------
    pathlib.Path
        The path of the file.

    Raises
    ------
    TypeError
        If `path` is no path.
    ValueError
        If no file can have this name.
    FileNotFoundError
        If the folder does not exist.
    OSError
        If the folder cannot be written to, or the path is that of a folder.
    """
    with written_whole(path) as stream:
        stream.write(text.encode("utf-8", "backslashreplace"))
    return file_path(path)


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Give a binary stream whose content appears at `path` as a whole once the block ends without an error.

    A link is followed, an existing file keeps its permissions, and a device or a pipe is written to directly.

    Parameters
    ----------
    path : str or path-like
        Where the file goes; its folder must exist.

    Yields
    ------
    binary file
        What is written here goes into the file; after an error the file holds what it held before.

    Raises
    ------
    TypeError
        If `path` is no path.
    ValueError
        If no file can have this name.
    FileNotFoundError
        If the folder does not exist.
    OSError
        If the folder cannot be written to, or the path is that of a folder.
    """
    given = file_path(path)
    target = Path(os.path.realpath(given))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"`path` must lie in a folder that exists; create that of {str(given)!r} first")
    if target.is_dir():
        raise IsADirectoryError(f"`path` must be that of a file; {str(given)!r} is a folder")
    if target.exists() and not target.is_file():
        with target.open("wb") as stream:
            yield stream
        return
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}")
    # The mode asked for here is cut down by the umask, which no other call can read without changing it.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o777)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def file_path(path: str | os.PathLike[str], name: str = "path", kind: str = "file") -> Path:
    """Check that an argument is a name that a file (or a folder) can have, and return it as a path.

    Raises
    ------
    TypeError
        If it is no path.
    ValueError
        If no file can have this name.
    """
    try:
        text = os.fspath(path)
    except TypeError:
        raise TypeError(f"`{name}` must be the path of a {kind}; got {describe(path)}") from None
    if not isinstance(text, str):
        raise TypeError(f"`{name}` must be a str or a path of that kind; got {describe(path)}")
    try:
        legal = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half of a surrogate pair
        legal = False
    if not legal or any(len(part) > _LONGEST_NAME for part in Path(text).parts):
        raise ValueError(f"`{name}` must be a name that a {kind} can have; got {describe(path)}")
    return Path(text)

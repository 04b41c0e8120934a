"""Reading records: files, folders, datasets and plain iterables of mappings, one record at a time."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np

from rankdiag._optional import optional
from rankdiag._validate import describe, string

__all__ = [
    "Located",
    "RecordsDigest",
    "extract_prompt",
    "iterate_records",
    "message_list",
    "read_records",
    "same_start",
]

Located = tuple[str, Mapping[str, Any]]  # where a record stands, for messages, and the record

T = TypeVar("T")
_ENDINGS = ".jsonl, .json or .parquet"
_BATCH = 256  # records of a Parquet file that are Python objects at one time


def read_records(source: Any, *, split: str | None = None) -> list[dict[str, Any]]:
    """Read records of any supported source into a list of dictionaries.

    Parameters
    ----------
    source : str, path-like, datasets.Dataset, or iterable of mappings
        A ``.jsonl`` file (one object a line), a ``.json`` file (a list of objects), a ``.parquet`` file, a folder
        written by ``save_to_disk`` of Hugging Face datasets, one of their objects, or any iterable of mappings.
    split : str, optional
        Which split of a dictionary of datasets; not needed where there is only one.

    Returns
    -------
    list of dict
        One dictionary for each record, in order; nothing is left out.

    Raises
    ------
    TypeError
        If `source` is none of these.
    ValueError
        If a file is damaged (the message has file and line), a record is no mapping, an object repeats a key, or
        `split` is missing or unknown.
    FileNotFoundError
        If there is no such file; nothing is ever downloaded.
    MissingExtraError
        If pyarrow or datasets is needed and not installed.

    Notes
    -----
    `encode` takes the same sources directly and then never holds more than a few hundred texts.

    Examples
    --------
    >>> from rankdiag.language_models import read_records
    >>> read_records([{"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"}])
    [{'prompt': '2 + 2 =', 'chosen': ' 4', 'rejected': ' 5'}]
    """
    return [dict(record) for _, record in iterate_records(source, "source", split=split)]


def iterate_records(source: Any, name: str = "records", *, split: str | None = None) -> Iterator[Located]:
    """Yield records one at a time, each with the words that say where it stands.

    Parameters
    ----------
    source : object
        As `read_records` takes it.
    name : str
        Name of the argument, for messages.
    split : str, optional
        As `read_records` takes it.

    Returns
    -------
    iterator of (str, mapping)
        Place and record. What is wrong with `source` itself is raised by the call, not by the first step.
    """
    if split is not None:
        string(split, "split")
    if isinstance(source, (str, os.PathLike)):
        return _from_path(source, name, split)
    if _is_of(source, "datasets", "DatasetDict", "IterableDatasetDict"):
        return _from_dataset(_one_split(source, name, split), name)
    if split is not None:
        raise ValueError(f"`split` must be left out, for `{name}` has no splits; got {describe(split)}")
    if _is_of(source, "datasets", "Dataset", "IterableDataset"):
        return _from_dataset(source, name)
    return _from_iterable(source, name)


def _is_of(value: Any, package: str, *names: str) -> bool:
    module = sys.modules.get(package)
    kinds = tuple(kind for name in names if isinstance(kind := getattr(module, name, None), type))
    return isinstance(value, kinds)


def _from_iterable(source: Any, name: str) -> Iterator[Located]:
    if isinstance(source, Mapping):
        raise TypeError(
            f"`{name}` must be an iterable of mappings, one for each record; got one mapping ({describe(source)}). "
            "Of columns, make rows first; of one record, a list with it"
        )
    if _is_of(source, "pandas", "DataFrame"):
        raise TypeError(f"`{name}` must be an iterable of mappings; of a {describe(source)} pass .to_dict('records')")
    try:
        rows = iter(source)
    except Exception:  # TypeError as a rule; a foreign object may raise anything
        raise TypeError(
            f"`{name}` must be a path ({_ENDINGS}, or a folder of save_to_disk), a dataset or an iterable of "
            f"mappings; got {describe(source)}"
        ) from None
    return _checked(rows, name)


def _checked(rows: Iterable[Any], name: str) -> Iterator[Located]:
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(
                f"`{name}`: record {index} must be a mapping of column names to values; got {describe(row)}"
            )
        yield f"record {index}", row


# --- files ---------------------------------------------------------------------------------------------------------


def _from_path(source: str | os.PathLike[str], name: str, split: str | None) -> Iterator[Located]:
    given = os.fspath(source)
    if not isinstance(given, str) or "\0" in given:
        raise ValueError(f"`{name}` must be a path that a file can have; got {describe(given)}")
    path = Path(given)
    try:
        is_folder, is_there = path.is_dir(), path.exists()
    except OSError:  # a text instead of a path is too long a name, as a rule
        is_folder = is_there = False
    if is_folder:
        return _from_folder(path, name, split)
    if not is_there:
        raise FileNotFoundError(
            f"`{name}`: there is no file or folder {describe(given)}. Nothing is downloaded: for a dataset of the Hub, "
            "pass what datasets.load_dataset returns"
        )
    if split is not None:
        raise ValueError(f"`split` must be left out, for the file {given!r} has no splits; got {describe(split)}")
    readers = {".jsonl": _from_lines, ".json": _from_json, ".parquet": _from_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"`{name}` must be a file that ends in {_ENDINGS}; got {given!r}")
    return reader(path)


def _from_lines(path: Path) -> Iterator[Located]:
    index = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            place = f"{path.name}, line {number}"
            content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not content.strip():
                continue
            row = _parse(content, place)
            if not isinstance(row, Mapping):
                hint = "; name a file with one list of all records .json" if isinstance(row, list) else ""
                raise ValueError(f"{place}: must hold one JSON object; got {describe(row)}{hint}")
            yield f"record {index} ({place})", row
            index += 1


def _from_json(path: Path) -> Iterator[Located]:
    rows = _parse(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), path.name)
    if not isinstance(rows, list):
        raise ValueError(f"{path.name}: must hold a list of objects; got {describe(rows)}")
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(f"{path.name}: record {index} must be an object; got {describe(row)}")
        yield f"record {index} ({path.name})", row


def _parse(content: bytes, place: str) -> Any:
    """Read one JSON text, or say what is wrong with it and in which line."""
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise ValueError(f"{_line_of(place, content, error.start)}: is no UTF-8 ({error.reason})") from None
    except json.JSONDecodeError as error:
        hint = "; name a file with one object a line .jsonl" if "line " not in place and "Extra" in error.msg else ""
        where = place if "line " in place else f"{place}, line {error.lineno}"
        raise ValueError(f"{where}: is no JSON ({error.msg} at column {error.colno}){hint}") from None
    except RecursionError:
        raise ValueError(f"{place}: is nested too deeply") from None
    except ValueError as error:  # a repeated key, or a number of thousands of digits
        raise ValueError(f"{place}: {error}") from None


def _line_of(place: str, content: bytes, start: int) -> str:
    return place if "line " in place else f"{place}, line {content[:start].count(10) + 1}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        repeated, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"an object must not repeat a key; {repeated!r} comes twice")
    return found


def _from_parquet(path: Path) -> Iterator[Located]:
    parquet = optional("pyarrow.parquet", extra="parquet", feature="reading a Parquet file")
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if len(set(names)) != len(names):
                raise ValueError("column names repeat")
            index = 0
            for batch in file.iter_batches(batch_size=_BATCH):
                for row in batch.to_pylist():
                    yield f"record {index} ({path.name})", row
                    index += 1
    except Exception as error:  # damage makes pyarrow raise of many kinds
        if isinstance(error, OSError) and error.errno is not None:  # from the system: no right to read, say
            raise
        raise ValueError(f"{path.name}: is no readable Parquet file ({error})") from error


def _from_folder(path: Path, name: str, split: str | None) -> Iterator[Located]:
    if not any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        raise ValueError(
            f"`{name}` must be a folder that save_to_disk of datasets wrote; {str(path)!r} has neither state.json nor "
            f"dataset_dict.json. Pass one of its files ({_ENDINGS})"
        )
    datasets = optional("datasets", extra="datasets", feature="reading a folder of save_to_disk")
    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # a damaged folder raises whatever its damage leads to
        raise ValueError(f"`{name}`: the dataset in {str(path)!r} cannot be read ({error})") from error
    if isinstance(found, Mapping):
        return _from_dataset(_one_split(found, name, split), name, path.name)
    if split is not None:
        raise ValueError(f"`split` must be left out, for {str(path)!r} has no splits; got {describe(split)}")
    return _from_dataset(found, name, path.name)


def _one_split(found: Mapping[str, T], name: str, split: str | None) -> T:
    names = ", ".join(map(repr, found))
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    if split is None:
        raise ValueError(
            f"`{name}` has the splits {names}; choose one, with read_records(..., split=...), dataset[...] or --split"
        )
    if split not in found:
        raise ValueError(f"`split` must be one of {names}; got {split!r}")
    return found[split]


def _from_dataset(dataset: Any, name: str, folder: str = "") -> Iterator[Located]:
    # A format turns columns into tensors and drops others; records are plain Python.
    for place, row in _checked(dataset.with_format(None), name):
        yield (f"{place} ({folder})" if folder else place), row


class RecordsDigest:
    """A sha256 of records as they are: names of columns, their values, and their order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def watch(self, located: Iterable[Located]) -> Iterator[Located]:
        """Pass records on, and take each in."""
        for place, record in located:
            self.add(record)
            yield place, record

    def add(self, record: Mapping[str, Any]) -> None:
        """Take one record in."""
        try:
            text = json.dumps(record, sort_keys=True, default=_as_json)
        except Exception:  # names that are no strings, a record that holds itself, an object that refuses to be read
            text = describe(record)
        self._digest.update(text.encode("utf-8", "backslashreplace") + b"\n")

    def hexdigest(self) -> str:
        """Return the digest of all that was taken in."""
        return self._digest.hexdigest()


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    read = getattr(value, "tolist", None)
    return read() if callable(read) else str(value)


# --- prompts inside of responses -----------------------------------------------------------------------------------


def extract_prompt(record: Mapping[str, Any]) -> dict[str, Any]:
    """Take the prompt out of a pair whose two responses are given with it.

    Parameters
    ----------
    record : mapping
        Columns ``chosen`` and ``rejected``: two full strings, or two full conversations (lists of messages with
        ``role`` and ``content``). Other columns are not read, ``prompt`` neither.

    Returns
    -------
    dict
        ``prompt``, ``chosen``, ``rejected``: the longest common start, by characters or by turns, and what follows
        it. One space just before the place where strings part goes to the responses. The prompt is empty if the two
        have no start in common.

    Raises
    ------
    TypeError
        If `record` is no mapping.
    ValueError
        If the responses are identical, or one is the start of the other, so that it has no response of its own; or
        if they are not both strings or both conversations.

    Notes
    -----
    The cut is by characters, so it may fall inside a word, where both responses begin with the same letters. Cut at
    the first turn, or give the prompt in a column of its own, where that matters.

    Examples
    --------
    >>> from rankdiag.language_models import extract_prompt
    >>> extract_prompt({"chosen": "The sky is blue.", "rejected": "The sky is green."})
    {'prompt': 'The sky is', 'chosen': ' blue.', 'rejected': ' green.'}
    """
    if not isinstance(record, Mapping):
        raise TypeError(f"`record` must be a mapping; got {describe(record)}")
    sides = [_side(record.get(name), name) for name in ("chosen", "rejected")]
    chosen, rejected = sides
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise ValueError("`record`: `chosen` and `rejected` must both be strings, or both conversations")
    shared = same_start(chosen, rejected)
    if len(chosen) == len(rejected) == shared:
        raise ValueError("`record`: the responses are identical")
    for name, side in zip(("chosen", "rejected"), sides, strict=True):
        if len(side) == shared:
            raise ValueError(f"`record`: empty response; all of `{name}` is the start of the other one")
    if isinstance(chosen, str) and chosen[shared - 1 : shared] == " ":
        shared -= 1
    return {"prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}


def _side(value: Any, name: str) -> str | list[dict[str, Any]]:
    return value if isinstance(value, str) else message_list(value, f"`record`: `{name}`")


def same_start(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Return how many leading entries two sequences have in common."""
    short = min(len(first), len(second))
    if first[:short] == second[:short]:
        return short
    low = 0  # halve the place of the first difference: slices compare in C
    while short - low > 1:
        middle = (low + short) // 2
        low, short = (middle, short) if first[low:middle] == second[low:middle] else (low, middle)
    return low


def message_list(value: Any, place: str) -> list[dict[str, Any]]:
    """Check a conversation and return its messages without their empty columns.

    Parameters
    ----------
    value : object
        A list of mappings with ``role`` and ``content``.
    place : str
        Where it stands, for messages.

    Returns
    -------
    list of dict
        The messages. Columns that hold None are left out, but for ``content``: files with a schema fill up with None
        what a message does not have.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    if isinstance(value, np.ndarray):  # how pandas hands over lists in columns
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{place} must be a string or a list of messages; got {describe(value)}")
    return [_message(entry, f"message {index} of {place}") for index, entry in enumerate(value)]


def _message(entry: Any, place: str) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        _refuse_message(place, describe(entry))
    role, content = entry.get("role"), entry.get("content")
    if not isinstance(role, str) or not role:
        found = describe(role) if "role" in entry else "the columns " + ", ".join(sorted(map(str, entry)))[:80]
        _refuse_message(place, found)
    if content is not None and not isinstance(content, (str, list)):
        raise ValueError(f"{place}: `content` must be a string; got {describe(content)}")
    return {str(name): part for name, part in entry.items() if part is not None or name == "content"}


def _refuse_message(place: str, found: str) -> NoReturn:
    raise ValueError(f"{place} must be a mapping with `role`, a string, and `content`; got {found}")

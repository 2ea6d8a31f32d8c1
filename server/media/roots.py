"""Media roots: the only folders from which files are taken in, and the one way a file in them is opened."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import unquote, urlsplit

import platformdirs

from dreamontage.schemas import limits
from dreamontage.schemas.errors import InvalidInput, PathRefused

ROOTS_VARIABLE: Final = "DREAMONTAGE_MEDIA_ROOTS"
_ALLOWED: Final = "a media id, or the path of a file in the media roots"
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_OPEN_FOLDER: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_QUOTES: Final = str.maketrans({"'": "’", '"': "”", "`": "’"})
_OTHER_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISLNK, "a link that leads nowhere"),
)


def media_roots(inbox: Path, extra: Iterable[str | Path] = (), start: Path | None = None) -> tuple[Path, ...]:
    """Existing media roots, absolute, in the order in which relative paths are looked up.

    `inbox`: the studio's inbox. `extra`: folders of --media-root, looked up right after it with those of the variable
    DREAMONTAGE_MEDIA_ROOTS. `start`: the start folder, by default the current one. The user's folders and the start
    folder are left out where they are `/` or the home.
    """
    home = Path.home()
    given = (*extra, *os.environ.get(ROOTS_VARIABLE, "").split(os.pathsep))
    named = [Path(entry).expanduser() for entry in given if entry]
    usual = [
        start or Path.cwd(),
        platformdirs.user_pictures_path(),
        platformdirs.user_videos_path(),
        platformdirs.user_desktop_path(),
        platformdirs.user_downloads_path(),
    ]
    # A desktop without one of these folders points it at the home itself.
    modest = [path for path in usual if path.resolve() not in (home.resolve(), Path("/"))]
    found = [Path(os.path.abspath(path)) for path in (inbox, *named, *modest) if path.is_dir()]
    return tuple(dict.fromkeys(found))


def shorten(path: Path) -> str:
    """A path for human eyes, with the home as ~."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) and path != home else str(path)


def clean_name(text: str) -> str:
    """A name that is safe to show between quotes: at most 80 characters, without control and format characters."""
    printable = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in text.translate(_QUOTES))
    return " ".join(printable.split())[: limits.MAX_LABEL_CHARS]


def is_link(text: str) -> bool:
    """Whether a plain string is meant as a link and not as a path; a file:// URI is a path."""
    scheme, separator, _ = text.strip()[:12].partition("://")
    return bool(separator) and scheme.lower() != "file"


def open_in_roots(requested: str, roots: Sequence[Path]) -> tuple[int, str]:
    """Open a regular file inside the roots: (descriptor to be closed by the caller, cleaned file name).

    Relative paths are looked up in each root, `~` is the home, file:// URIs are paths. Symbolic links may lead from one
    place in the roots to another, never out. Raises PathRefused with the roots, InvalidInput for what is no path.
    """
    path = _as_path(requested)
    name = clean_name(path.name) or "that path"
    places = [(resolved, _root_of(resolved, roots)) for resolved in _places(path, roots)]
    found = next(((place, root) for place, root in places if root and os.path.lexists(place)), None)
    if found is None and not all(root for _, root in places):  # the same words whether or not the file exists
        raise _refusal(f"'{name}' is outside the media roots, or a link out of them", roots)
    if found is None:
        raise _refusal(f"there is no file '{name}' in the media roots", roots)
    try:
        return _open_below(found[1], found[0], name, roots), name
    except PermissionError as error:
        raise PathRefused(f"'{name}' may not be read by this user", allowed="a file this user may read") from error
    except OSError as error:
        raise _refusal(f"'{name}' cannot be opened ({error.strerror})", roots) from error


def located(requested: str, roots: Sequence[Path]) -> Path:
    """Where the file is that open_in_roots has opened under the same words, links resolved."""
    places = [(place, _root_of(place, roots)) for place in _places(_as_path(requested), roots)]
    return next(place for place, root in places if root and os.path.lexists(place))


def _as_path(requested: str) -> Path:
    text = requested.strip()
    if text[:7].lower() == "file://":
        text = unquote(urlsplit(text).path)
    try:
        os.fsencode(text)
        return Path(text).expanduser() if text and "\0" not in text and len(text) <= 4096 else _no_path()
    except UnicodeEncodeError:
        return _no_path()
    except RuntimeError:  # ~somebody whom the machine does not know
        return Path(text)


def _no_path() -> NoReturn:
    raise InvalidInput("an empty or impossible path", allowed=_ALLOWED)


def _places(path: Path, roots: Sequence[Path]) -> list[Path]:
    """Where a path may mean, links resolved: itself, or below each root (also when it begins with the root's name)."""
    if path.is_absolute():
        candidates = [path]
    else:
        candidates = [root / path for root in roots]
        candidates += [root.parent / path for root in roots if len(path.parts) > 1 and path.parts[0] == root.name]
    return [Path(os.path.realpath(candidate)) for candidate in candidates]


def _root_of(resolved: Path, roots: Sequence[Path]) -> Path | None:
    reals = (Path(os.path.realpath(root)) for root in roots)
    return next((root for root in reals if resolved.is_relative_to(root)), None)


def _open_below(root: Path, resolved: Path, name: str, roots: Sequence[Path]) -> int:
    """Walk from the root by descriptors; a link met on the way was put there after the path was resolved: refused."""
    *folders, last = resolved.relative_to(root).parts or (".",)
    folder = os.open(root, _OPEN_FOLDER)
    try:
        for part in folders:
            deeper = os.open(part, _OPEN_FOLDER, dir_fd=folder)
            os.close(folder)
            folder = deeper
        # Looked at before it is opened: opening a device or a pipe can have effects of its own.
        _require_regular(os.stat(last, dir_fd=folder, follow_symlinks=False).st_mode, name, roots)
        descriptor = os.open(last, _OPEN_FILE, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        _require_regular(os.fstat(descriptor).st_mode, name, roots)
    except PathRefused:
        os.close(descriptor)
        raise
    return descriptor


def _require_regular(mode: int, name: str, roots: Sequence[Path]) -> None:
    if not stat.S_ISREG(mode):
        kind = next((noun for is_kind, noun in _OTHER_KINDS if is_kind(mode)), "something else")
        raise _refusal(f"'{name}' is {kind}, not a file", roots)


def _refusal(problem: str, roots: Sequence[Path]) -> PathRefused:
    return PathRefused(
        problem,
        allowed="files in " + ", ".join(shorten(root) for root in roots),
        next_call=f"copy the file into {shorten(roots[0])}, or restart the server with --media-root FOLDER"
        f" (or {ROOTS_VARIABLE})",
    )

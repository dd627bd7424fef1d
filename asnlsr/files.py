"""Outputs that are either whole or absent."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and remove it at the end of the block.

    The name is fixed, so what a killed run left behind is removed by the next one. A parent
    folder made for the purpose goes too if it is still empty.
    """
    made_parent = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    remove(temporary)
    try:
        yield temporary
    finally:
        remove(temporary)
        if made_parent:
            with suppress(OSError):
                path.parent.rmdir()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` when the block ends without an error.

    Works for a file and for a directory; an earlier ``path`` stays untouched until then.
    """
    path = Path(path)
    with scratch(path) as temporary:
        yield temporary
        if path.is_dir():
            remove(path)
        temporary.replace(path)


def remove(path: Path) -> None:
    """Delete a file or a directory with its content, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

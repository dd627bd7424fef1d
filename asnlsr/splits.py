"""Which tile plays which role: random thirds, or whole scenes."""

import json
from pathlib import Path

import numpy as np

from asnlsr.domains import DOMAINS
from asnlsr.files import replacing
from asnlsr.tiles import open_tiles, tile_ids

ROLES = ("source_train", "target_train", "val", "test")
Split = dict[str, list[str]]


def make_split(tiles: Path, by: str = "scene", seed: int = 0) -> Split:
    """Give every tile a role.

    Parameters
    ----------
    tiles : Path
        Folder written by ``prepare``.
    by : {"scene", "tile"}
        ``scene``: no scene in two roles; a third of the n scenes is test, a sixth validation,
        a third of the rest target training, the others source training. ``tile``: random
        thirds as published; neighbouring tiles land in different roles, and the tiles reported
        (``test``) are those of validation, as in the release.
    seed : int

    Returns
    -------
    dict of str to list of str
        Role to tile identifiers "scene/row0/col0", in the order of the store.

    Raises
    ------
    ValueError
        If ``by`` is unknown or there are too few scenes or tiles for it.
    """
    ids = tile_ids(open_tiles(tiles, next(iter(DOMAINS))))
    if by == "scene":
        return _by_scene(Path(tiles), ids, seed)
    if by == "tile":
        return _by_tile(Path(tiles), ids, seed)
    raise ValueError(f"split by {by!r} is neither 'scene' nor 'tile'")


def _by_tile(tiles: Path, ids: list[str], seed: int) -> Split:
    if len(ids) < 3:
        raise ValueError(f"{tiles}: {len(ids)} tiles, a split by tile needs at least 3")
    third = np.random.default_rng(seed).permutation(len(ids)) * 3 // len(ids)
    split = {
        role: [id_ for id_, k in zip(ids, third, strict=True) if k == number]
        for number, role in enumerate(ROLES[:3])
    }
    return split | {"test": list(split["val"])}


def _by_scene(tiles: Path, ids: list[str], seed: int) -> Split:
    scenes = sorted({scene_of(id_) for id_ in ids})
    n = len(scenes)
    if n < 4:
        raise ValueError(
            f"{tiles}: {n} scenes, a split by scene needs at least 4; prepare more or use --by tile"
        )
    test, val = max(1, round(n / 3)), max(1, n // 6)
    target = max(1, (n - test - val) // 3)
    counts = (n - test - val - target, target, val, test)
    roles = np.repeat(ROLES, counts)
    order = np.random.default_rng(seed).permutation(n)
    role_of = {scenes[k]: str(role) for k, role in zip(order, roles, strict=True)}
    return {role: [id_ for id_ in ids if role_of[scene_of(id_)] == role] for role in ROLES}


def scene_of(tile_id: str) -> str:
    """Scene name of a tile identifier."""
    return tile_id.rsplit("/", 2)[0]


def write_split(split: Split, path: Path) -> None:
    """Write a split as JSON."""
    with replacing(Path(path)) as temporary:
        temporary.write_text(json.dumps(split, indent=1) + "\n", encoding="utf-8")


def read_split(path: Path, tiles: Path | None = None) -> Split:
    """Read a split and check it.

    Parameters
    ----------
    path : Path
        JSON written by :func:`write_split`.
    tiles : Path, optional
        Tile store that must hold every tile named in the split.

    Raises
    ------
    FileNotFoundError
        If the file is missing.
    ValueError
        If it is not a split, or names tiles that the store does not hold.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such split file; make it with asnlsr split")
    try:
        split = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); make it again with asnlsr split") from None
    if not _is_split(split):
        raise ValueError(f"{path}: must map {', '.join(ROLES)} to lists of tile identifiers")
    if tiles is not None:
        held = set(tile_ids(open_tiles(tiles, next(iter(DOMAINS)))))
        absent = sorted({id_ for ids in split.values() for id_ in ids} - held)
        if absent:
            raise ValueError(
                f"{path}: {len(absent)} tiles are not in {tiles}, first {absent[0]}; "
                "make the split again for these tiles"
            )
    return dict(split)


def _is_split(split: object) -> bool:
    return (
        isinstance(split, dict)
        and set(split) == set(ROLES)
        and all(isinstance(ids, list) for ids in split.values())
        and all(isinstance(id_, str) for ids in split.values() for id_ in ids)
    )

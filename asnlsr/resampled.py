"""What stays true of a scene whose pixels become larger or smaller: header fields, file names."""

from pathlib import Path

from asnlsr.degrade import grid_offset
from asnlsr.scenes import Scene

_CARRIED = (
    "acquisition time", "coordinate system string", "sensor type", "sun azimuth", "sun elevation"
)  # fmt: skip


def resampled_fields(scene: Scene, scale: int, finer: bool) -> dict[str, object]:
    """Header fields of a scene that was enlarged or degraded by ``scale``.

    The point spread function is centred beside the pixels that it replaces, so the coarse grid
    lies :func:`asnlsr.degrade.grid_offset` fine pixels off the fine one. ``map info`` says so.

    Raises
    ------
    ValueError
        If the scene has a ``map info`` that cannot be used.
    """
    fields = {key: scene.header[key] for key in _CARRIED if key in scene.header}
    if "map info" in scene.header:
        fields["map info"] = _map_info(scene, scale, finer)
    return fields


def _map_info(scene: Scene, scale: int, finer: bool) -> list[str]:
    """Move the reference point (column, row; 1 is the outer edge) and change the pixel size."""
    info = list(scene.header["map info"])
    offset = grid_offset(scale)
    try:
        for n in (1, 2):
            edge = float(info[n]) - 1
            edge = edge * scale + offset if finer else (edge - offset) / scale
            info[n] = f"{edge + 1:.10g}"
        for n in (5, 6):
            info[n] = f"{float(info[n]) * (1 / scale if finer else scale):.10g}"
    except (ValueError, IndexError):
        raise ValueError(f"{scene.hdr}: map info is damaged; mend or remove the field") from None
    return info


def check_output(scene: Scene, out: Path) -> None:
    """Refuse a name that is no header's, or under which the scene itself or another lies."""
    if out.suffix != ".hdr":
        raise ValueError(f"{out}: the name of the output must end in .hdr")
    inputs = {scene.hdr.resolve(), scene.img.resolve()}
    if inputs & {out.resolve(), out.with_suffix(".img").resolve()}:
        raise ValueError(f"{out}: would overwrite its own input; choose another --out")
    if (other := out.with_suffix(".img.hdr")).exists():
        raise ValueError(f"{out}: would overwrite the pixels of {other}; choose another --out")

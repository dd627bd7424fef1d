"""The command line: every verb is a few lines over a library function."""

from __future__ import annotations

import errno
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

from asnlsr import __version__

# The verbs import what they call themselves, so that --help does not wait for torch.
app = typer.Typer(
    name="asnlsr",
    help="Hyperspectral super-resolution with cross-spectral domain adaptation.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Tiles = Annotated[Path, typer.Option(help="Folder made by prepare.")]
SplitFile = Annotated[Path, typer.Option(help="JSON made by split.")]
Seed = Annotated[int, typer.Option(help="Same seed, same result.", min=0, max=2**32 - 1)]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Show version or help where no verb is given."""
    if version:
        typer.echo(f"asnlsr {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@app.command(epilog="Example: asnlsr simulate --out scenes --scenes 6 --size 512x256")
def simulate(
    out: Annotated[Path, typer.Option(help="Folder for the ENVI scenes.")],
    scenes: Annotated[int, typer.Option(help="Number of scenes.")] = 6,
    size: Annotated[str, typer.Option(help="Rows x columns of a scene.")] = "512x256",
    seed: Seed = 0,
) -> None:
    """Simulate radiance scenes of parks and buildings."""
    from asnlsr.scenes.simulator.simulate import simulate

    rows, _, cols = size.lower().partition("x")
    if not (rows.isdecimal() and cols.isdecimal()):
        raise ValueError(f"--size {size}: must be rows x columns, such as 512x256")
    simulate(out, scenes, (int(rows), int(cols)), seed)


@app.command(epilog="Example: asnlsr fetch tiles splits --out data/published --dry-run")
def fetch(
    out: Annotated[Path, typer.Option(help="Folder for the folders of the share.")],
    kinds: Annotated[
        list[str] | None,
        typer.Argument(help="All three by default.", metavar="tiles|radiance|splits"),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Link of the share, where it is not the authors' own.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what is missing.")] = False,
) -> None:
    """Download the published dataset, or go on with it; verify what is there."""
    from asnlsr.tiles.fetch import SHARE, fetch

    missing = fetch(kinds or (), out, url or SHARE, dry_run)
    if dry_run:
        for file in missing:
            typer.echo(f"{file.size:>12}  {file.path}")
        total = sum(file.size for file in missing)
        typer.echo(f"{total:>12}  bytes in {len(missing)} files to fetch into {out}")


@app.command(epilog="Example: asnlsr prepare scenes/*.hdr --out tiles --tile 128")
def prepare(
    scenes: Annotated[list[Path], typer.Argument(help="ENVI headers.", metavar="SCENE.hdr...")],
    out: Annotated[Path, typer.Option(help="Folder for the tiles of both domains.")],
    tile: Annotated[int, typer.Option(help="Rows and columns of a tile (pixels).")] = 128,
    scale: Annotated[int, typer.Option(help="Decimation of the low-resolution tiles.")] = 4,
    border: Annotated[
        str, typer.Option(help="scene: blur, then cut; zero: blur each tile alone.")
    ] = "scene",
) -> None:
    """Cut scenes into tiles of SWIR1 and SWIR2 with their low-resolution twins."""
    from asnlsr.tiles.prepare import prepare

    prepare(scenes, out, tile, scale, border)


@app.command(epilog="Example: asnlsr split tiles --by scene --out split.json")
def split(
    tiles: Annotated[Path, typer.Argument(help="Folder made by prepare.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    by: Annotated[
        str, typer.Option(help="scene: no scene in two roles; tile: random thirds.")
    ] = "scene",
    seed: Seed = 0,
) -> None:
    """Give every tile a role: source_train, target_train, val or test."""
    from asnlsr.tiles.store import make_split, read_split, write_split

    _ours(out, ".json", read_split)
    roles = make_split(tiles, by, seed)
    write_split(roles, out)
    typer.echo(", ".join(f"{len(ids)} {role}" for role, ids in roles.items()), err=True)


@app.command(
    epilog="Example: asnlsr train asnlsr --tiles tiles --split split.json --out run --preset demo"
)
def train(
    model: Annotated[str, typer.Argument(help="bicubic, snlsr, ... or asnlsr; best is bandwise.")],
    tiles: Tiles,
    split: SplitFile,
    out: Annotated[
        Path, typer.Option(help="Run folder; the same run, unfinished, is resumed; no other goes.")
    ],
    preset: Annotated[str, typer.Option(help="smoke, demo or paper.")] = "demo",
    protocol: Annotated[str, typer.Option(help="blind or as-released.")] = "blind",
    recipe: Annotated[str, typer.Option(help="warm or published.")] = "warm",
    seed: Seed = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Setting to override, repeatable.", metavar="KEY=VALUE"),
    ] = None,
    devices: Annotated[int, typer.Option(help="Processes that share every batch (ddp).")] = 1,
) -> None:
    """Train a model into a run folder."""
    overrides = dict(_setting(text) for text in settings or ())
    from asnlsr.models.registry import BEST
    from asnlsr.training.run import train

    train(
        BEST if model == "best" else model, tiles, split, out,
        preset=preset, protocol=protocol, recipe=recipe, seed=seed, overrides=overrides,
        devices=devices,
    )  # fmt: skip


def _setting(text: str) -> tuple[str, Any]:
    """Read ``key=value``, the value a JSON scalar or else a plain string."""
    key, equals, literal = text.partition("=")
    try:
        value = json.loads(literal)
    except ValueError:
        value = literal
    if not key or not equals or not literal or isinstance(value, (list, dict)):
        raise ValueError(f"--set {text}: must be key=value with one value, such as lr=0.001")
    return key, value


@app.command(epilog="Example: asnlsr evaluate runs/* --tiles tiles --split split.json --out m.csv")
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", metavar="RUN...")],
    tiles: Tiles,
    split: SplitFile,
    out: Annotated[Path, typer.Option(help="CSV file to write.")],
    role: Annotated[str, typer.Option(help="test, or val while still choosing.")] = "test",
) -> None:
    """Measure runs: one line per model, seed, domain, tile and metric."""
    from asnlsr.files import replacing
    from asnlsr.results.evaluate import evaluate

    _ours(out, ".csv", _read_metrics)
    metrics = evaluate(runs, tiles, split, role)
    with replacing(out) as temporary:
        metrics.to_csv(temporary, index=False)


@app.command(epilog="Example: asnlsr upscale lr.hdr --run runs/asnlsr --out hr.hdr")
def upscale(
    scene: Annotated[Path, typer.Argument(help="ENVI header.", metavar="LR_SCENE.hdr")],
    run: Annotated[Path, typer.Option(help="Folder of a finished run.")],
    out: Annotated[Path, typer.Option(help="ENVI header to write; .img and .png go beside it.")],
) -> None:
    """Super-resolve a whole scene; when interrupted, the same command goes on."""
    from asnlsr.upscale import upscale

    upscale(scene, run, out)


@app.command(epilog="Example: asnlsr degrade scene.hdr --out lr.hdr")
def degrade(
    scene: Annotated[Path, typer.Argument(help="ENVI header.", metavar="SCENE.hdr")],
    out: Annotated[Path, typer.Option(help="ENVI header to write.")],
    scale: Annotated[int, typer.Option(help="Of so many pixels a side, one is kept.")] = 4,
) -> None:
    """Blur and decimate a scene, to test an enlargement against known truth."""
    from asnlsr.scenes.degrade import degrade_scene

    degrade_scene(scene, out, scale)


@app.command(epilog="Example: asnlsr import-weights official.pth --out runs/official")
def import_weights(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of the original release (.pth).")],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
) -> None:
    """Turn a checkpoint of the original release into a run folder."""
    from asnlsr.training.official import import_weights

    run = import_weights(checkpoint, out)
    skip = "on" if run["config"]["skip"] else "off"
    typer.echo(f"{run['model']}, {run['bands']} bands, x{run['scale']}, skip {skip}", err=True)


@app.command(epilog="Example: asnlsr table metrics.csv --domain swir2 --format md")
def table(
    metrics: Annotated[Path, typer.Argument(help="CSV file made by evaluate.")],
    domain: Annotated[str, typer.Option(help="swir1 or swir2.")] = "swir2",
    format_: Annotated[str, typer.Option("--format", help="md, csv or latex.")] = "md",
) -> None:
    """Print the results table."""
    from asnlsr.results.tables import render, results_table

    typer.echo(render(results_table(_read_metrics(metrics), domain), format_))


def _read_metrics(path: Path) -> pd.DataFrame:
    """Read a file made by evaluate."""
    import pandas as pd

    try:
        rows = pd.read_csv(path)
        rows["value"] = pd.to_numeric(rows["value"])
        rows[["model", "seed", "protocol", "recipe", "domain", "metric"]]
    except (ValueError, KeyError):
        raise ValueError(f"{path}: not a metrics file; make it with asnlsr evaluate") from None
    return rows


def _ours(out: Path, suffix: str, read: Callable[[Path], object]) -> None:
    """Refuse a file to write that is not of the kind, or not one to replace: `read` says so."""
    if out.suffix != suffix:
        raise ValueError(f"{out}: the name of the output must end in {suffix}")
    if out.is_file():
        try:
            read(out)
        except ValueError:
            raise ValueError(f"{out}: is something else; choose another --out") from None


def _warn(message: Warning | str, *_: object) -> None:
    from tqdm import tqdm

    tqdm.write(f"asnlsr: warning: {message}", file=sys.stderr)  # not into the middle of a bar


def main() -> None:
    """Run the command line; unusable input ends in one line and exit code 2."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn  # type: ignore[assignment]
            sys.exit(app(standalone_mode=False))
    except (ValueError, OSError) as error:
        message = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            message = f"{error.filename}: {error.strerror}"
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            message += "; free some space or choose another --out"
        if isinstance(error, FileExistsError | NotADirectoryError):
            message += "; a folder is needed here"
    except MemoryError as error:
        message = f"not enough memory ({error}); choose smaller sizes"
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "format_message"):  # what Typer makes of wrong arguments has it
            raise
        message = f"{error.format_message().rstrip('.')}. See asnlsr --help."
    sys.stderr.write("asnlsr: " + " ".join(message.split()) + "\n")
    sys.exit(2)


if __name__ == "__main__":
    main()

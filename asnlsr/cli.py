"""The command line: every verb is a few lines over a library function."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from asnlsr.files import keep, replacing

# The verbs import what they call themselves, so that --help does not wait for torch.
HELP = "Hyperspectral super-resolution with cross-spectral domain adaptation."
app = typer.Typer(
    help=HELP, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)

Tiles = Annotated[Path, Option(help="Folder made by prepare.")]
SplitFile = Annotated[Path, Option(help="JSON made by split.")]
Header = Annotated[Path, Argument(help="ENVI header.", metavar="SCENE.hdr")]
SHARE = "https://nextcloud.rma.ac.be/index.php/s/DtbtLjTqcFpETWB"  # of the authors
Protocol = Literal["blind", "as-released"]
Seed = Annotated[int, Option(help="Same seed, same result.", min=0, max=2**32 - 1)]
Device = Literal["auto", "cpu", "cuda"]
Force = Annotated[bool, Option("--force", help="Replace what is there.")]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Show version or help where no verb is given."""
    if version:
        from importlib import metadata  # slow

        typer.echo(f"asnlsr {metadata.version('asnlsr')}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@app.command(epilog="Example: asnlsr simulate --out scenes --scenes 6 --size 512x256")
def simulate(
    out: Annotated[Path, Option(help="Folder for the ENVI scenes.")],
    scenes: Annotated[int, Option(help="Number of scenes.", min=1)] = 6,
    size: Annotated[str, Option(help="Rows x columns of a scene.")] = "512x256",
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Simulate radiance scenes of parks and buildings."""
    from asnlsr.scenes.simulator.simulate import read_size, simulate

    simulate(out, scenes, read_size(size), seed, force=force)


@app.command(epilog="Example: asnlsr fetch tiles splits --out data/published --dry-run")
def fetch(
    out: Annotated[Path, Option(help="Folder for the folders of the share.")],
    kinds: Annotated[list[str] | None, Argument(metavar="tiles|radiance|splits")] = None,
    url: Annotated[str, Option(help="Link of the share.")] = SHARE,
    dry_run: Annotated[bool, Option("--dry-run", help="Only list what is missing.")] = False,
    password: Annotated[str, Option(envvar="ASNLSR_PASSWORD", help="Asked for if needed.")] = "",
) -> None:
    """Download the published dataset, or go on with it; verify what is there."""
    from asnlsr.tiles.fetch import fetch

    try:
        missing = fetch(kinds or (), out, url, dry_run, password)
    except PermissionError as error:
        if password or error.errno or not sys.stdin.isatty():
            raise
        password = typer.prompt(f"asnlsr: {error}\nIts password", hide_input=True, err=True)
        missing = fetch(kinds or (), out, url, dry_run, password)
    if dry_run:
        for file in missing:
            typer.echo(f"{file.size:>12}  {file.path}")
        total = f"{sum(file.size for file in missing):>12}  bytes in {len(missing)} files"
        typer.echo(f"{total} to fetch into {out}")


@app.command(epilog="Example: asnlsr prepare scenes/*.hdr --out tiles --tile 128")
def prepare(
    scenes: Annotated[list[Path], Argument(help="ENVI headers.", metavar="SCENE.hdr...")],
    out: Annotated[Path, Option(help="Folder for the tiles of both domains.")],
    tile: Annotated[int, Option(help="Rows and columns of a tile (pixels).")] = 128,
    scale: Annotated[int, Option(help="Decimation of the low-resolution tiles.")] = 4,
    border: Annotated[Literal["scene", "zero"], Option(help="zero: tile by tile.")] = "scene",
    force: Force = False,
) -> None:
    """Cut scenes into tiles of SWIR1 and SWIR2 with their low-resolution twins."""
    from asnlsr.tiles.prepare import prepare

    prepare(scenes, out, tile, scale, border, force=force)


@app.command(epilog="Example: asnlsr split tiles --by scene --out split.json")
def split(
    tiles: Annotated[Path, Argument(help="Folder made by prepare.")],
    out: Annotated[Path, Option(help="JSON file to write.")],
    by: Annotated[str, Option(help="scene, tile, or without-SCENE: that is the test.")] = "scene",
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Give every tile a role: source_train, target_train, val or test."""
    from asnlsr.tiles.store import make_split, write_split

    keep(out, force=force)
    roles = make_split(tiles, by, seed)
    write_split(roles, out)
    typer.echo(", ".join(f"{len(ids)} {role}" for role, ids in roles.items()), err=True)


@app.command(epilog="Example: asnlsr train asnlsr --tiles tiles --split split.json --out run")
def train(
    model: Annotated[str, Argument(help="bicubic, snlsr, ... or asnlsr; best is bandwise.")],
    tiles: Tiles,
    split: SplitFile,
    out: Annotated[Path, Option(help="Run folder; the same run, unfinished, goes on.")],
    preset: Annotated[Literal["smoke", "short", "demo", "paper"], Option(help="Sizes.")] = "demo",
    protocol: Annotated[Protocol, Option(help="as-released sees target truth.")] = "blind",
    recipe: Annotated[Literal["warm", "published"], Option(help="Of training.")] = "warm",
    seed: Seed = 0,
    set_: Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE")] = None,
    devices: Annotated[int, Option(help="Processes that share a batch.", min=1)] = 1,
    device: Annotated[Device, Option(help="auto: a GPU if there is one.")] = "auto",
) -> None:
    """Train a model into a run folder."""
    from asnlsr.config import Experiment, setting
    from asnlsr.models.registry import BEST

    given, name = dict(map(setting, set_ or ())), BEST if model == "best" else model
    experiment = Experiment(name, preset, protocol, recipe, seed, given)
    from asnlsr.tiles.store import TileSet  # torch comes now, when what is asked for can be
    from asnlsr.training.run import keep_freed_memory, train

    keep_freed_memory()
    train(experiment, TileSet(tiles, split), out, devices=devices, device=device)


@app.command(epilog="Example: asnlsr evaluate runs/* --tiles tiles --split split.json --out m.csv")
def evaluate(
    runs: Annotated[list[Path], Argument(help="Run folders.", metavar="RUN...")],
    tiles: Tiles,
    split: SplitFile,
    out: Annotated[Path, Option(help="CSV file to write.")],
    role: Annotated[str, Option(help="test, or val while still choosing.")] = "test",
    device: Annotated[Device, Option(help="auto: a GPU if there is one.")] = "auto",
    ceiling: Annotated[bool, Option(help="Also measure simulated scenes without noise.")] = True,
    force: Force = False,
) -> None:
    """Measure runs: one line per run, domain, tile and metric."""
    from asnlsr.results.evaluate import evaluate
    from asnlsr.tiles.store import TileSet

    keep(out, force=force)
    with replacing(out) as temporary:
        measured = evaluate(runs, TileSet(tiles, split), role, device=device, ceiling=ceiling)
        measured.to_csv(temporary, index=False)


@app.command(epilog="Example: asnlsr upscale lr.hdr --run runs/asnlsr --out hr.hdr")
def upscale(
    scene: Header,
    run: Annotated[Path, Option(help="Folder of a finished run.")],
    out: Annotated[Path, Option(help="ENVI header to write; .img and .png go beside it.")],
    psf: Annotated[Path | None, Option(help="PSF of the sensor: text, 32 x 32.")] = None,
    force: Force = False,
) -> None:
    """Super-resolve a whole scene; when interrupted, the same command goes on."""
    from asnlsr.upscale import upscale

    upscale(scene, run, out, force=force, psf=psf)


@app.command(epilog="Example: asnlsr degrade scene.hdr --out lr.hdr")
def degrade(
    scene: Header,
    out: Annotated[Path, Option(help="ENVI header to write.")],
    scale: Annotated[int, Option(help="Of so many pixels a side, one is kept.")] = 4,
    force: Force = False,
) -> None:
    """Blur and decimate a scene, to test an enlargement against known truth."""
    from asnlsr.scenes.degrade import degrade_scene

    degrade_scene(scene, out, scale, force=force)


@app.command(epilog="Example: asnlsr import-weights official.pth --out runs/official")
def import_weights(
    checkpoint: Annotated[Path, Argument(help="Checkpoint of the original release (.pth).")],
    out: Annotated[Path, Option(help="Run folder to write.")],
    force: Force = False,
) -> None:
    """Turn a checkpoint of the original release into a run folder."""
    from asnlsr.training.official import import_weights

    keep(beside=[out / "run.json", out / "weights.safetensors"], force=force)
    run = import_weights(checkpoint, out)
    typer.echo("{model}, {bands} bands, x{scale}, skip={config[skip]}".format(**run), err=True)


@app.command(epilog="Example: asnlsr import-tiles processed_tiles --out tiles --split a.npz")
def import_tiles(
    folder: Annotated[Path, Argument(help="Folder around *dom1_* and *dom2_*.")],
    out: Annotated[Path, Option(help="Folder for the tiles and the splits.")],
    split: Annotated[list[Path] | None, Option(help="Split (.npz), repeatable.")] = None,
    force: Force = False,
) -> None:
    """Turn tiles and splits of the original release into those of prepare and split."""
    from asnlsr.tiles.official import import_tiles

    import_tiles(folder, out, split or (), force=force)


@app.command(epilog="Example: asnlsr table metrics.csv --domain swir2 --format md")
def table(
    metrics: Annotated[Path, Argument(help="CSV file made by evaluate.")],
    domain: Annotated[Literal["swir1", "swir2"], Option(help="Of the tiles.")] = "swir2",
    format_: Annotated[Literal["md", "csv", "latex"], Option("--format")] = "md",
) -> None:
    """Print the results table."""
    from asnlsr.results.tables import read_metrics, render, results_table

    typer.echo(render(results_table(read_metrics(metrics), domain), format_))


@app.command(epilog="Example: asnlsr doctor")
def doctor() -> None:
    """Check the installation, the data and a known answer; exit 1 if something is off."""
    from asnlsr.doctor import report

    raise typer.Exit(report())


def main() -> None:
    """Run the command line; unusable input ends in one line and exit code 2."""
    from asnlsr.terminal import plain_terminal

    with plain_terminal():
        sys.exit(app(standalone_mode=False))


if __name__ == "__main__":
    main()

"""Damaged files: whatever is read ends in a result or in one line that names what is wrong."""

import json
import os
import random
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from asnlsr.files import told
from asnlsr.models.registry import build
from asnlsr.results.evaluate import evaluate
from asnlsr.results.tables import read_metrics
from asnlsr.scenes.envi import open_scene
from asnlsr.scenes.simulator.simulate import open_layers, twin
from asnlsr.tiles.fetch import fetch
from asnlsr.tiles.official import read_npz_split
from asnlsr.tiles.store import TileSet, make_split, read_split
from asnlsr.training.official import export_weights, import_weights
from asnlsr.upscale import upscale
from tests import test_fetch
from tests.conftest import make_scene

TIMES = int(os.environ.get("ASNLSR_FUZZ", "15"))  # per kind of file
JUNK = (None, True, -1, 0, 7, 1e308, 10**30, float("nan"), "", "x", "é\0\n", [], [[]], {}, {"a": 1})
share, server, url, out = (getattr(test_fetch, name) for name in ("share", "server", "url", "out"))


def damaged(dice: random.Random, content: bytes) -> bytes:
    """Cut, overwrite or insert some bytes; in JSON also put junk in the place of a value."""
    if content[:1] == b"{" and dice.random() < 0.7:
        return json.dumps(_spoilt(dice, json.loads(content))).encode()
    start = dice.randrange(len(content) + 1)
    stop = min(len(content), start + dice.choice((0, 1, 4, 100, len(content))))
    return content[:start] + dice.randbytes(dice.choice((0, 1, 4, 100))) + content[stop:]


def _spoilt(dice: random.Random, value: object) -> object:
    """Replace or remove one value somewhere in a document."""
    if not value or not isinstance(value, dict | list) or dice.random() < 0.2:
        return dice.choice(JUNK)
    key = dice.choice(list(value) if isinstance(value, dict) else range(len(value)))
    if dice.random() < 0.3:
        del value[key]
    else:
        value[key] = _spoilt(dice, value[key])
    return value


def fuzz(path: Path, read, named: Path | None = None) -> None:
    """Damage a file in many ways; every error of its reader has to be documented, and name it."""
    whole = path.read_bytes()
    for n in range(TIMES):
        path.write_bytes(damaged(random.Random(f"{path.name} {n}"), whole))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read()
        except (ValueError, OSError) as error:
            if str(named or path.parent) not in told(error):
                raise AssertionError(f"damage {n} of {path.name}: {told(error)}") from error
        except Exception as error:
            raise AssertionError(f"damage {n} of {path.name}: {error!r}") from error
    path.write_bytes(whole)


@pytest.fixture
def tiles(tiny_tiles, tiny_split, tmp_path):
    """A copy of the tiny tiles, with a split."""
    shutil.copytree(tiny_tiles, tmp_path / "tiles")
    shutil.copy(tiny_split, tmp_path / "split.json")
    return TileSet(tmp_path / "tiles", tmp_path / "split.json")


def test_split(tiles):
    fuzz(tiles.split, lambda: read_split(tiles.split, tiles.folder), tiles.split)


@pytest.mark.parametrize("name", [".zattrs", ".zgroup", "lr/.zarray", "row0/.zarray", "lr/.zattrs"])
def test_tile_store(tiles, name):
    def read():
        again = TileSet(tiles.folder, tiles.split)
        pairs = again.pairs("test", "swir1")
        assert pairs.lr.shape[2] * pairs.scale == pairs.hr.shape[2]
        assert make_split(tiles.folder)["test"]

    fuzz(tiles.folder / "swir1.zarr" / name, read, tiles.folder)


@pytest.fixture
def run(tmp_path):
    """A finished run of a network without weights."""
    folder = tmp_path / "run"
    folder.mkdir()
    save_file({}, folder / "weights.safetensors")
    record = {"model": "bicubic", "seed": 0, "preset": "smoke", "protocol": "blind"}
    record |= {"recipe": "warm", "setting": "", "config": {}, "bands": 30, "scale": 4}
    (folder / "run.json").write_text(json.dumps(record | {"pixels_sha256": "0", "name": "run"}))
    return folder


def test_run(run, tiles):
    small = SimpleNamespace(**{name: getattr(tiles, name) for name in ("roles", "folder", "split")})
    small.pairs, small.pixels_sha256, small.split_sha256 = tiles.pairs, "1", "2"
    fuzz(run / "run.json", lambda: evaluate([run], small, progress=False))


def test_run_that_enlarges_a_scene(run, tmp_path):
    scene = make_scene(tmp_path / "s.hdr", 16, 16)
    read = lambda: upscale(scene, run, tmp_path / "hr.hdr", progress=False, force=True)  # noqa: E731
    fuzz(run / "run.json", read)


def test_layers_of_a_scene(tmp_path):
    hdr = make_scene(tmp_path / "s.hdr", 16, 16)
    twin(hdr).parent.mkdir()
    make_scene(twin(hdr), 16, 16)
    npz = twin(hdr).with_suffix(".npz")
    np.savez_compressed(npz, quarters=np.full((16, 16, 2), 2, np.uint8), materials=["a", "b"])

    def read():
        for layer in open_layers(open_scene(hdr)) or ():
            assert layer.read_rows(0, 16).shape[1:] == (16, 16)

    fuzz(npz, read)


def test_split_of_the_release(tmp_path):
    path, names = tmp_path / "split.npz", {"SWIR_1": ["a"], "SWIR_2": ["b"]}
    np.savez(path, train=np.array(names, object), val=np.array(names, object))
    fuzz(path, lambda: read_npz_split(path))


def test_checkpoint_of_the_release(tmp_path):
    path, network = tmp_path / "official.pth", build("rcam", bands=3, scale=2)
    weights = export_weights(network, "RCAMSRNetwork")
    torch.save({"model_state_dict": weights, "h_params": {}, "model_class": "RCAMSRNetwork"}, path)
    fuzz(path, lambda: import_weights(path, tmp_path / "run"))


def test_metrics(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(
        "run,model,setting,seed,preset,protocol,recipe,domain,scene,tile,metric,value\n"
        + "r,bicubic,,0,smoke,blind,warm,swir2,a,a/0/0,psnr,30.0\n" * 3
    )
    fuzz(path, lambda: read_metrics(path))


def test_answers_of_a_server(share, url, out):
    """Listings with other bytes, tags or numbers in them; nothing is written outside of `out`."""
    for n in range(TIMES):
        dice = random.Random(n)
        share.rewrite = lambda body, dice=dice: damaged(dice, body.encode()).decode(
            "utf-8", "replace"
        )
        share.status = dice.choice((None, None, None, "200 OK", "404 Not Found", "500 Oh", "999 ?"))
        try:
            fetch(["splits"], out, url)
        except (ValueError, OSError):
            continue
        except Exception as error:
            raise AssertionError(f"answer {n}: {error!r}") from error
    assert {path.name for path in out.parent.iterdir()} <= {"share", "published"}

"""What `asnlsr doctor` says of this checkout, and of one that lacks something."""

import shutil
import subprocess

import pytest
import torch

from asnlsr import doctor
from asnlsr.training.folder import load_run
from tests.smoke_book import ROOT


def test_checkout_is_sound(asnlsr):
    code, out, err = asnlsr("doctor")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    for part in ("torch", "threads", "GB of disk", "data:", "reference weights", "known", "dB"):
        assert sum(part in line for line in lines) == 1


def test_recorded_hashes_are_in_the_usual_format():
    """So that `sha256sum --check` reads them, and no weights go without."""
    folder = ROOT / "data/weights"
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    named = {line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert named == {str(p.relative_to(folder)) for p in folder.glob("*/weights.safetensors")}


@pytest.mark.parametrize("folder", sorted((ROOT / "data/weights").glob("*/")), ids=lambda p: p.name)
def test_weights_of_the_repository_are_read_whatever_wrote_them(folder):
    network, record = load_run(folder)
    assert record["model"] == folder.name
    assert network(torch.full((1, 30, 16, 16), 0.5)).sr.shape == (1, 30, 64, 64)


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_every_fault_has_its_line(asnlsr, tmp_path, monkeypatch, damage):
    shutil.copytree(ROOT / "data/weights", tmp_path / "data/weights")
    weights = tmp_path / "data/weights/rcam/weights.safetensors"
    if damage == "flipped":
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    else:
        weights.unlink()
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    monkeypatch.setattr(doctor, "degrade", lambda image: image[..., ::4, ::4])  # without blur
    code, out, _ = asnlsr("doctor")
    assert code == 1
    off = [line for line in out.splitlines() if line.startswith("OFF ")]
    assert "rcam/weights.safetensors" in off[0]
    assert off[1] == "OFF blur leaves 1.000 of a wave, known 0.435"

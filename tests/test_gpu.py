"""Training on a GPU: the same as on the CPU, and what of it can be seen without one."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from asnlsr.config import Experiment
from asnlsr.device import StepGraphs, _Recorded, device_of, float32_products, fusing
from asnlsr.models.registry import MODELS, build
from asnlsr.models.sanl import abundance_attention
from asnlsr.results.evaluate import predict
from asnlsr.training.folder import load_run
from asnlsr.training.module import SuperResolutionTraining
from asnlsr.training.run import train

GPU = torch.cuda.is_available()
needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not GPU, reason="no CUDA GPU")]
SMALL = {"steps": 4, "warmup_steps": 2, "log_every": 3, "batch": 2}


class Unrecorded(StepGraphs):
    """Does a step where a graph would be replayed: all but CUDA."""

    def __call__(self, batch, warming_up):
        total, log, grads = self._work(batch, warming_up)
        self.last = _Recorded(None, batch, total, log, grads)
        return total, log


@pytest.mark.parametrize("model", ["asnlsr", "bandwise"])
def test_gradients_of_a_graph_are_those_of_a_step(model, tiny_set, tmp_path, monkeypatch):
    settings = {key: SMALL[key] for key in SMALL if MODELS[model].unmixes or "warmup" not in key}
    experiment = Experiment(model, "smoke", settings=settings)
    plain = train(experiment, tiny_set, tmp_path / "plain", progress=False, device="cpu")
    monkeypatch.setattr(
        SuperResolutionTraining,
        "on_train_start",
        lambda self: setattr(self, "_graphs", Unrecorded(self._objective, self.network)),
    )
    graphed = train(experiment, tiny_set, tmp_path / "graphed", progress=False, device="cpu")
    a, b = (load_file(folder / "weights.safetensors") for folder in (plain, graphed))
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-5, atol=1e-6, msg=key)
    assert (plain / "history.csv").read_text().splitlines()[0] == (
        (graphed / "history.csv").read_text().splitlines()[0]
    )


def test_device_names():
    assert device_of("cpu").type == "cpu"
    assert device_of("auto").type == ("cuda" if GPU else "cpu")


@pytest.mark.skipif(GPU, reason="there is a GPU")
def test_absent_gpu_is_told():
    with pytest.raises(ValueError, match="no CUDA GPU"):
        device_of("cuda")


def test_products_are_afterwards_as_before():
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    with float32_products(tf32=True):
        assert all(backend.allow_tf32 for backend in backends)
    assert [backend.allow_tf32 for backend in backends] == before


def test_graphs_refuse_what_they_cannot_record():
    for model, settings in (("snlsr-mmd", {}), ("asnlsr", {"precision": "bf16-mixed"})):
        with pytest.raises(ValueError, match="graphs"):
            Experiment(model, settings={"graphs": "plain"} | settings)


def test_what_is_known_of_the_blur_stays_on_the_cpu():
    network = build("richardson-lucy").to("meta")
    assert {buffer.device.type for buffer in network.buffers()} == {"cpu"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, with which torch compiles")
def test_fused_attention():
    q, k, v = (torch.randn(70, 64, requires_grad=True) for _ in range(3))

    def of_now():
        out = abundance_attention(q, k, v)
        return out, *torch.autograd.grad(out.square().sum(), (q, k, v))

    plain = of_now()
    with fusing(True):
        fused = of_now()
    for a, b in zip(plain, fused, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


class TestOnAGpu:
    pytestmark = needs_gpu

    @pytest.mark.parametrize("model", [name for name, model in MODELS.items() if not model.oracle])
    def test_outputs(self, model):
        torch.manual_seed(0)
        network, lr = build(model).eval(), torch.rand(2, 30, 32, 32)
        here = predict(network, lr)
        apart = (predict(network.cuda(), lr, "cuda") - here).abs().max()
        assert apart < 1e-4

    @pytest.mark.parametrize("graphs", ["off", "plain", "fused"])
    @pytest.mark.parametrize("model", ["snlsr-unmix", "asnlsr", "bandwise"])
    def test_short_training(self, model, graphs, tiny_set, tmp_path):
        warm = {"warmup_steps": 30} if MODELS[model].unmixes else {}
        sizes = {"steps": 100, "log_every": 50} | warm
        psnr = {}
        for device in ("cpu", "cuda"):
            given = sizes | ({"graphs": graphs} if device == "cuda" else {})
            out = tmp_path / device
            experiment = Experiment(model, "smoke", settings=given)
            train(experiment, tiny_set, out, progress=False, device=device)
            network, record = load_run(out, "cpu")
            val = tiny_set.pairs("val", "swir1")
            error = (predict(network, val.lr) - val.hr).square().mean()
            psnr[device] = float(-10 * error.log10())
            assert record["device"].startswith(device)
        assert abs(psnr["cuda"] - psnr["cpu"]) < 0.05

    def test_dropout_of_a_graph_is_that_of_its_step(self, tiny_set, tmp_path):
        ends = []
        for graphs in ("off", "plain"):
            experiment = Experiment("asnlsr", "smoke", settings=SMALL | {"graphs": graphs})
            out = train(experiment, tiny_set, tmp_path / graphs, progress=False, device="cuda")
            ends.append(load_file(out / "weights.safetensors"))
        for key, value in ends[0].items():
            torch.testing.assert_close(value, ends[1][key], rtol=1e-3, atol=1e-4, msg=key)

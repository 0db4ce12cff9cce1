"""Weights from files: formats, wrappers, other sizes, Microsoft's Swin, Darknet's binary, and errors."""

from __future__ import annotations

import copy
import logging
import re
import struct
import warnings
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from riszoo.encoders import weights as loading
from riszoo.encoders.base import VisionConfig
from riszoo.encoders.vision import build_vision
from riszoo.errors import UserError

SIZE = (64, 64)
RESNET = {"layers": [1, 1, 1, 1], "channels": [8, 12, 16, 24]}
SWIN = {"embed_dim": 8, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 2, 4], "window_size": 4}
SWIN_NAME = "swin_tiny_patch4_window7_224"
VIT = {"embed_dim": 16, "depth": 2, "num_heads": 2}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def resnet() -> nn.Module:
    """A ResNet with random weights and statistics, and a head of ten classes."""
    model: nn.Module = timm.create_model("resnet18", num_classes=10, **RESNET)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand_like(tensor) * 0.1)
    return model.eval()


def vision(name: str, weights: Path | str, size: tuple[int, int] = SIZE, **options: Any) -> nn.Module:
    return build_vision(VisionConfig(name, str(weights), options=options), size).eval()


def assert_same_features(encoder: nn.Module, source: nn.Module, size: tuple[int, int] = SIZE) -> None:
    """The encoder's last map equals the features of a timm model; a Swin normalises them, NHWC."""
    x = torch.rand(1, 3, *size, dtype=torch.float64)
    exact: Any = copy.deepcopy(source).double()
    features = encoder.double()(x)[-1]
    if hasattr(exact, "norm"):
        features = exact.norm(features.permute(0, 2, 3, 1))
    torch.testing.assert_close(features, exact.forward_features(x), rtol=1e-9, atol=1e-9)


def wrapped(state: dict[str, Tensor], kind: str) -> Any:
    prefixes = {"ddp": "module.", "lightning": "model.", "mmseg": "backbone."}
    renamed = {prefixes.get(kind, "") + name: value for name, value in state.items()}
    if kind == "mmseg":
        renamed["decode_head.weight"] = torch.zeros(3)
    return {"plain": renamed, "model": {"model": renamed, "epoch": 3}}.get(kind, {"state_dict": renamed})


@pytest.mark.parametrize("kind", ["plain", "model", "ddp", "lightning", "mmseg"])
def test_a_file_gives_the_features_of_its_model(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    source = resnet()
    torch.save(wrapped(source.state_dict(), kind), tmp_path / "weights.pth")
    with caplog.at_level(logging.INFO):
        encoder = vision("resnet18", tmp_path / "weights.pth", **RESNET)
    assert_same_features(encoder, source)
    assert "fc.weight" in caplog.text
    assert ("ignored decode_head.weight, which are outside backbone" in caplog.text) == (kind == "mmseg")


def test_safetensors(tmp_path: Path) -> None:
    source = resnet()
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    assert_same_features(vision("resnet18", tmp_path / "weights.safetensors", **RESNET), source)


# Microsoft's Swin


def as_microsoft(model: nn.Module) -> dict[str, Tensor]:
    """A timm Swin under the names of the original code, with the buffers that it saved."""
    state = {}
    for name, value in model.state_dict().items():
        moved = re.sub(r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m.group(1)) - 1}.downsample", name)
        state[moved.replace("head.fc.", "head.")] = value
    for module in ("layers.0.blocks.1", "layers.1.blocks.1"):
        state[f"{module}.attn_mask"] = torch.zeros(4, 16, 16)
        state[f"{module}.attn.relative_position_index"] = torch.zeros(16, 16, dtype=torch.int64)
    return state


def swin(size: tuple[int, int] = SIZE, **options: Any) -> nn.Module:
    model: nn.Module = timm.create_model(SWIN_NAME, img_size=size, num_classes=21841, **{**SWIN, **options})
    for name, value in model.state_dict().items():
        if "relative_position_bias_table" in name or "norm" in name:
            value.add_(torch.randn_like(value))
    return model.eval()


def test_microsofts_swin_file_gives_the_features_of_its_model(tmp_path: Path) -> None:
    source = swin()
    state = as_microsoft(source)
    assert "layers.0.downsample.reduction.weight" in state
    assert "layers.3.downsample.reduction.weight" not in state
    torch.save({"model": state}, tmp_path / "swin_22k.pth")
    encoder = vision(SWIN_NAME, tmp_path / "swin_22k.pth", **SWIN)
    assert_same_features(encoder, source)


def test_swin_at_a_larger_frame_keeps_the_windows_and_their_tables(tmp_path: Path) -> None:
    source = swin((128, 128))
    torch.save({"model": as_microsoft(source)}, tmp_path / "swin.pth")
    encoder = vision(SWIN_NAME, tmp_path / "swin.pth", (160, 192), **SWIN)
    larger = timm.create_model(SWIN_NAME, img_size=(160, 192), num_classes=0, **SWIN).eval()
    larger.load_state_dict({name: value for name, value in source.state_dict().items() if "head" not in name})
    assert_same_features(encoder, larger, (160, 192))


def test_tables_of_other_windows_are_resized(tmp_path: Path) -> None:
    source = swin(window_size=4)
    for name, value in source.state_dict().items():
        if "relative_position_bias_table" in name:
            value.copy_(torch.arange(value.shape[1]).expand_as(value))
    torch.save(as_microsoft(source), tmp_path / "swin.pth")
    encoder = vision(SWIN_NAME, tmp_path / "swin.pth", **{**SWIN, "window_size": 8})
    table = encoder.stages[0].blocks[0].attn.relative_position_bias_table
    assert table.shape == (15 * 15, 1)
    wide = encoder.stages[1].blocks[0].attn.relative_position_bias_table
    torch.testing.assert_close(wide, torch.arange(2.0).expand_as(wide))


def test_positions_of_another_size_are_resized(tmp_path: Path) -> None:
    source: Any = timm.create_model("vit_tiny_patch16_224", img_size=SIZE, num_classes=3, **VIT)
    torch.nn.init.constant_(source.pos_embed, 0.5)
    torch.save(source.state_dict(), tmp_path / "vit.pt")
    encoder: Any = vision("vit_tiny_patch16_224", tmp_path / "vit.pt", (96, 160), **VIT)
    assert encoder.vit.pos_embed.shape == (1, 1 + 6 * 10, 16)
    torch.testing.assert_close(encoder.vit.pos_embed, torch.full((1, 61, 16), 0.5))


# what does not fit


def test_missing_backbone_weights_are_an_error_and_a_missing_head_is_not(tmp_path: Path) -> None:
    state = {name: value for name, value in resnet().state_dict().items() if not name.startswith("fc.")}
    torch.save(state, tmp_path / "headless.pth")
    assert vision("resnet18", tmp_path / "headless.pth", **RESNET)
    state.pop("layer3.0.conv1.weight")
    torch.save(state, tmp_path / "holes.pth")
    with pytest.raises(UserError, match=r"holes.pth lacks layer3.0.conv1.weight of this encoder"):
        vision("resnet18", tmp_path / "holes.pth", **RESNET)


def test_a_swin_file_without_its_last_norm_is_enough(tmp_path: Path) -> None:
    state = {name: value for name, value in as_microsoft(swin()).items() if not name.startswith("norm.")}
    torch.save(state, tmp_path / "swin.pth")
    assert vision(SWIN_NAME, tmp_path / "swin.pth", **SWIN)


def test_the_file_of_a_deeper_model_is_refused(tmp_path: Path) -> None:
    deeper: nn.Module = timm.create_model("resnet18", **{**RESNET, "layers": [1, 1, 2, 1]})
    torch.save(deeper.state_dict(), tmp_path / "deeper.pth")
    with pytest.raises(UserError, match=r"deeper.pth contains layer3.1.conv1.weight.* larger architecture"):
        vision("resnet18", tmp_path / "deeper.pth", **RESNET)
    torch.save(as_microsoft(swin(depths=[2, 2, 4, 2])), tmp_path / "swin.pth")
    with pytest.raises(UserError, match=r"swin.pth does not fit SwinTransformer"):
        vision(SWIN_NAME, tmp_path / "swin.pth", **SWIN)


def test_different_shapes_are_named(tmp_path: Path) -> None:
    wider: nn.Module = timm.create_model("resnet18", **{**RESNET, "channels": [8, 12, 16, 28]})
    torch.save(wider.state_dict(), tmp_path / "wider.pth")
    with pytest.raises(UserError, match=r"layer4.* is \(28.* in the file and \(24.* in the encoder"):
        vision("resnet18", tmp_path / "wider.pth", **RESNET)


class Unsafe:
    """An object that only an unsafe loader would read."""


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", {"a": torch.zeros(1), "b": torch.zeros(1)}, "none of this encoder's weights; it contains a, b"),
        ("w.pth", {"model": {"epoch": 3}}, "contains no named tensors"),
        ("w.pth", torch.zeros(3), "contains no named tensors"),
        ("w.pth", {"model": Unsafe()}, "cannot be read as .pth"),
        ("w.pth", b"version https://git-lfs.github.com/spec/v1", "w.pth is a git-lfs pointer instead of the file"),
        ("w.pth", b"not a zip", "cannot be read as .pth"),
        ("w.safetensors", b"\x08", "cannot be read as .safetensors"),
        ("w.npz", b"", "has an unknown format"),
        ("w.weights", b"\0" * 400, "vision.name must be darknet53"),
        ("absent.pth", None, "no weight file at .*absent.pth; --model.vision.weights"),
    ],
)
def test_errors_about_a_file_are_one_sentence(tmp_path: Path, name: str, content: Any, message: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        torch.save(content, tmp_path / name)
    with pytest.raises(UserError, match=message) as caught:
        vision("resnet18", tmp_path / name, **RESNET)
    assert "\n" not in str(caught.value)


# by name


def test_missing_pretrained_weights_say_what_to_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    message = (
        r"download model.safetensors .* timm/resnet18.a1_in1k and give --model.vision.weights PATH.*set RISZOO_HUB"
    )
    with pytest.raises(UserError, match=message):
        vision("resnet18", "pretrained")
    with pytest.raises(UserError, match="timm has no pretrained weights for darknet17"):
        vision("darknet17", "pretrained")


def test_pretrained_weights_are_found_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = resnet()
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    cache = {("timm/resnet18.a1_in1k", "model.safetensors"): str(tmp_path / "model.safetensors")}
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *key: cache.get(key))
    assert_same_features(vision("resnet18", "pretrained", **RESNET), source)


def test_pretrained_weights_are_found_in_a_folder_of_repositories(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source, copy = resnet(), tmp_path / "timm" / "resnet18.a1_in1k"
    copy.mkdir(parents=True)
    monkeypatch.setenv(loading.HUB, str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: pytest.fail("the folder comes first"))
    with pytest.raises(UserError, match=r"resnet18.a1_in1k contains no model.safetensors or pytorch_model.bin"):
        vision("resnet18", "pretrained", **RESNET)
    torch.save(source.state_dict(), copy / "pytorch_model.bin")
    assert_same_features(vision("resnet18", "pretrained", **RESNET), source)


def test_downloading_needs_permission(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.save(resnet().state_dict(), tmp_path / "model.pth")
    requests: list[tuple[str, str]] = []

    def download(repository: str, file: str) -> str:
        requests.append((repository, file))
        return str(tmp_path / "model.pth")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(UserError, match="RISZOO_DOWNLOAD=1"):
        vision("resnet18", "pretrained", **RESNET)
    assert not requests
    monkeypatch.setenv(loading.DOWNLOAD, "1")
    assert vision("resnet18", "pretrained", **RESNET)
    assert requests == [("timm/resnet18.a1_in1k", "model.safetensors")]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("resnet18", "model.safetensors of the Hugging Face repository timm/resnet18.a1_in1k"),
        ("legacy_seresnet18", "https?://"),
    ],
)
def test_a_download_that_fails_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, source: str
) -> None:
    def unreachable(*_: Any) -> str:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setenv(loading.DOWNLOAD, "1")
    message = rf"cannot be downloaded from {source}.* \(URLError: .*not known.*give --model.vision.weights PATH"
    with pytest.raises(UserError, match=message) as caught:
        loading.timm_file(name)
    assert "\n" not in str(caught.value)


# Darknet


@pytest.fixture(scope="module")
def darknet() -> nn.Module:
    torch.manual_seed(5)
    model: nn.Module = timm.create_model("darknet53", num_classes=0).eval()
    for module in model.modules():
        if isinstance(module, nn.LeakyReLU):
            module.negative_slope = 0.1
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.add_(torch.rand_like(tensor) * 0.1)
    return model


def units(model: nn.Module) -> list[tuple[nn.BatchNorm2d, nn.Conv2d]]:
    """Convolutions with their norms, in the order of the forward pass."""
    order: list[nn.Module] = []
    kinds = (nn.Conv2d, nn.BatchNorm2d)
    hooks = [m.register_forward_hook(lambda m, *_: order.append(m)) for m in model.modules() if isinstance(m, kinds)]
    model(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    convolutions = [m for m in order if isinstance(m, nn.Conv2d)]
    norms = [m for m in order if isinstance(m, nn.BatchNorm2d)]
    return list(zip(norms, convolutions, strict=True))


def darknet_file(path: Path, model: nn.Module, version: tuple[int, int, int] = (0, 2, 0), extra: int = 0) -> Path:
    parts = []
    for norm, convolution in units(model):
        parts += [norm.bias, norm.weight, norm.running_mean, norm.running_var, convolution.weight]
    floats = np.concatenate([part.detach().numpy().ravel() for part in parts if part is not None])
    seen = struct.pack("<Q" if version[0] * 10 + version[1] >= 2 else "<I", 32_013_312)
    path.write_bytes(struct.pack("<3i", *version) + seen + floats.tobytes() + b"\0\0\0\0" * extra)
    return path


@pytest.mark.parametrize(("name", "version"), [("darknet53.conv.74", (0, 2, 0)), ("old.weights", (0, 1, 0))])
def test_a_darknet_file_gives_the_features_of_its_model(
    tmp_path: Path, darknet: nn.Module, name: str, version: tuple[int, int, int]
) -> None:
    path = darknet_file(tmp_path / name, darknet, version)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder = vision("darknet53", path, negative_slope=0.1)
    assert_same_features(encoder, darknet)
    assert sum(p.numel() for p in encoder.parameters()) == 40_584_928


def test_the_file_of_a_detector_loads_and_warns_of_the_leak(tmp_path: Path, darknet: nn.Module) -> None:
    path = darknet_file(tmp_path / "yolov3.weights", darknet, extra=1000)
    with pytest.warns(UserWarning, match="have seen the test images") as caught:
        encoder = vision("darknet53", path, negative_slope=0.1)
    assert len(caught) == 1
    assert_same_features(encoder, darknet)


def test_a_wrong_darknet_file_is_refused(tmp_path: Path, darknet: nn.Module) -> None:
    path = darknet_file(tmp_path / "d.weights", darknet)
    with pytest.raises(UserError, match=r"give --model.vision.options.negative_slope 0.1"):
        vision("darknet53", path)
    with pytest.raises(UserError, match=r"vision.name must be darknet53"):
        vision("darknet21", path, negative_slope=0.1)
    content = path.read_bytes()
    for cut, message in ((-4, "contains .* numbers, darknet53 needs 40,6"), (-3, "inside a number"), (10, "too short")):
        path.write_bytes(content[:cut])
        with pytest.raises(UserError, match=message):
            vision("darknet53", path, negative_slope=0.1)

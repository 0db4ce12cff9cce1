"""Any timm model as an encoder that language can enter between its stages.

timm says of every model where its maps are (`feature_info`) and whether its modules form a chain. A chain is cut at
those maps; where a stage begins with a downsampling module of its own (Swin, ConvNeXt), that becomes `down`. Of
models with maps at stride 2 or 1 too (ResNet, Darknet, EfficientNet) the maps from stride 4 on are taken, and the
stem holds what comes before. A plain ViT is a pyramid of one; so is the last map of what cannot be cut.
"""

from __future__ import annotations

import copy
import difflib
import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from riszoo.encoders import sam
from riszoo.encoders.base import VisionConfig, VisionEncoder
from riszoo.encoders.weights import existing, fill, first_line, load_weights, read_state
from riszoo.errors import UserError

Size = tuple[int, int]


def build_vision(vision: VisionConfig, size: Size) -> VisionEncoder:
    """The encoder that `vision` names, for images in a frame of `size` (H, W)."""
    if vision.name in sam.SIZES:
        return sam.build_sam(vision, size)
    import timm

    known = timm.is_model(vision.name.split(".")[0])
    encoder = _build_timm(vision, size) if known else _build_own(vision)
    if vision.stages is not None:
        encoder.keep(vision.stages)
    return encoder.freeze() if vision.frozen else encoder


@dataclass
class Maps:
    """Where a timm model's maps come out: module names, channels and strides, from fine to coarse."""

    modules: list[str]
    channels: list[int]
    strides: list[int]
    chained: bool


class Staged(VisionEncoder):
    """A chain of modules, cut where its maps come out."""

    def __init__(self, model: nn.Module, maps: Maps) -> None:
        super().__init__()
        self.channels, self.strides = maps.channels, maps.strides
        self.nhwc = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")
        (*before, first), *rest = segments(model, maps.modules)
        self.first = nn.Sequential(*before)
        stages = [first, *(part[0] if len(part) == 1 else nn.Sequential(*part) for part in rest)]
        steps = zip(stages[1:], self.channels, self.channels[1:], strict=False)
        self.downs = nn.ModuleList([nn.Identity(), *(_take_downsample(*step, self.nhwc) for step in steps)])
        self.stages = nn.ModuleList(stages)

    def stem(self, x: Tensor) -> Tensor:
        return self._out(self.first(x))

    def down(self, stage: int, x: Tensor) -> Tensor:
        return self._out(self.downs[stage](self._in(x)))

    def blocks(self, stage: int, x: Tensor) -> Tensor:
        return self._out(self.stages[stage](self._in(x)))

    def keep(self, stages: int) -> None:
        if not 1 <= stages <= len(self.channels):
            raise UserError(f"vision.stages {stages} of an encoder that has {len(self.channels)}")
        self.channels, self.strides = self.channels[:stages], self.strides[:stages]
        self.downs, self.stages = self.downs[:stages], self.stages[:stages]

    def _in(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1) if self.nhwc else x

    def _out(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2) if self.nhwc else x


def segments(model: nn.Module, taps: list[str]) -> list[list[nn.Module]]:
    """The chain's modules, each segment ending with the one whose output is a map."""
    segments: list[list[nn.Module]] = [[]]
    left = list(taps)
    for name, module in _chain(model, taps):
        segments[-1].append(module)
        if name in left:
            left.remove(name)
            segments.append([])
        if not left:
            break
    return segments[:-1]


def _chain(model: nn.Module, taps: list[str]) -> Iterable[tuple[str, nn.Module]]:
    """The model's children in order, opened where a map comes out inside."""
    for name, child in model.named_children():
        if any(tap.startswith(f"{name}.") for tap in taps):
            yield from ((f"{name}.{inner}", module) for inner, module in child.named_children())
        else:
            yield name, child


def _take_downsample(stage: nn.Module, before: int, after: int, nhwc: bool) -> nn.Module:
    """Take a stage's own first step out of it, so that the stage goes on from the next."""
    names = [name for name, _ in stage.named_children()]
    if names[:1] != ["downsample"] or "blocks" not in names:
        return nn.Identity()
    downsample = stage.get_submodule("downsample")
    if not _keeps_layout(downsample, before, after, nhwc):
        return nn.Identity()
    stage.downsample = nn.Identity()
    return downsample


def _keeps_layout(downsample: nn.Module, before: int, after: int, nhwc: bool) -> bool:
    """Whether a map goes in and comes out as the model's maps lie; PVT's and SwinV2-CR's change NCHW to NHWC here."""
    skeleton = copy.deepcopy(downsample).to("meta")
    try:
        shape = skeleton(torch.empty((1, 4, 4, before) if nhwc else (1, before, 4, 4), device="meta")).shape
    except RuntimeError:
        return False
    return bool(shape[3 if nhwc else 1] == after)


class PlainViT(VisionEncoder):
    """timm's VisionTransformer: one map, normed; class and register tokens stay inside."""

    def __init__(self, vit: Any) -> None:
        super().__init__()
        vit.reset_classifier(0, "")
        vit.fc_norm = nn.Identity()
        self.vit = vit
        self.channels, self.strides = [vit.embed_dim], [vit.patch_embed.patch_size[0]]

    def stem(self, x: Tensor) -> Tensor:
        patch = self.strides[0]
        tokens = self._placed(self.vit.patch_embed(x))[:, self.vit.num_prefix_tokens :]  # (I, h w, C)
        return _grid(tokens, x.shape[2] // patch, x.shape[3] // patch)

    def down(self, stage: int, x: Tensor) -> Tensor:
        return x

    def blocks(self, stage: int, x: Tensor) -> Tensor:
        tokens = torch.cat([self._prefix(x), x.flatten(2).transpose(1, 2)], 1)  # (I, prefix + h w, C)
        tokens = self.vit.norm(self._transformed(tokens))[:, self.vit.num_prefix_tokens :]
        return _grid(tokens, x.shape[2], x.shape[3])

    def _placed(self, patches: Tensor) -> Tensor:
        tokens: Tensor = self.vit.norm_pre(self.vit._pos_embed(patches))
        return tokens

    def _prefix(self, x: Tensor) -> Tensor:
        """(I, prefix, C): no image enters class and register tokens before the blocks, so none is needed here."""
        patches = x.new_zeros(1, x.shape[2], x.shape[3], x.shape[1])
        patches = patches if self.vit.dynamic_img_size else patches.flatten(1, 2)
        return self._placed(patches)[:, : self.vit.num_prefix_tokens].expand(len(x), -1, -1)

    def _transformed(self, tokens: Tensor) -> Tensor:
        from timm.models import checkpoint_seq

        checkpointed = self.vit.grad_checkpointing and torch.is_grad_enabled()
        transformed: Tensor = checkpoint_seq(self.vit.blocks, tokens) if checkpointed else self.vit.blocks(tokens)
        return transformed


def _grid(tokens: Tensor, height: int, width: int) -> Tensor:
    """(I, h w, C) -> (I, C, h, w)"""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, height, width)


class Undivided(VisionEncoder):
    """A model that cannot be cut: its last map, in one step; normed where all depths share one grid, as in a ViT."""

    def __init__(self, model: Any, maps: Maps) -> None:
        super().__init__()
        model.prune_intermediate_layers(1, prune_norm=False, prune_head=True)
        self.model, self.normed = model, len(maps.strides) == 1
        self.channels, self.strides = maps.channels[-1:], maps.strides[-1:]

    def stem(self, x: Tensor) -> Tensor:
        return x

    def down(self, stage: int, x: Tensor) -> Tensor:
        return x

    def blocks(self, stage: int, x: Tensor) -> Tensor:
        last: Tensor = self.model.forward_intermediates(
            x, indices=1, norm=self.normed, output_fmt="NCHW", intermediates_only=True
        )[-1]
        return last


def _build_timm(vision: VisionConfig, size: Size) -> VisionEncoder:
    options = dict(vision.options)
    checkpointed, slope = options.pop("grad_checkpointing", False), options.pop("negative_slope", None)
    sized = _is_sized(vision.name)
    if sized:
        options.setdefault("img_size", size)
    model = _create(vision.name, num_classes=0, **options)
    if slope is not None:
        _set_slope(model, slope, vision.name)
    loaded = None if vision.weights == "none" else load_weights(model, vision.weights, vision.name)
    encoder = _divided(model, vision.name, options)
    if loaded:
        loaded.check(encoder)
        encoder.weight_file = loaded.path
    if checkpointed:
        _checkpoint(model, encoder, vision.name)
    if sized:
        _check_size(encoder, vision.name, size)
    return encoder


def _is_sized(name: str) -> bool:
    """Whether a model is built for one image size (windows, position tables)."""
    import timm

    return bool(timm.get_pretrained_cfg(name).fixed_input_size)


def _create(name: str, **options: Any) -> Any:
    import timm

    try:
        return timm.create_model(name, **options)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise UserError(f"timm cannot build {name} with vision.options {options}: {first_line(error)}") from error


def _divided(model: Any, name: str, options: dict[str, Any]) -> VisionEncoder:
    from timm.models.vision_transformer import VisionTransformer

    if isinstance(model, VisionTransformer):
        return PlainViT(model)
    maps = _maps(name, options)
    if maps.chained and len(segments(model, maps.modules)) == len(maps.modules):
        return Staged(model, maps)
    if not hasattr(model, "prune_intermediate_layers"):
        raise UserError(f"timm's {name} gives no maps one after the other; choose a Swin, ConvNeXt, ResNet or ViT")
    return Undivided(model, maps)


def _maps(name: str, options: dict[str, Any]) -> Maps:
    """timm's own account of the maps, from a skeleton without memory; of each stride from 4 on the deepest."""
    from timm.models._features import FeatureListNet
    from timm.models.efficientnet import EfficientNetFeatures
    from timm.models.mobilenetv3 import MobileNetV3Features

    with torch.device("meta"):
        skeleton = _create(name, features_only=True, **options)
    infos = {info["reduction"]: info for info in skeleton.feature_info.get_dicts() if info["reduction"] >= 4}
    return Maps(
        modules=[info["module"] for info in infos.values()],
        channels=[info["num_chs"] for info in infos.values()],
        strides=list(infos),
        chained=isinstance(skeleton, FeatureListNet | EfficientNetFeatures | MobileNetV3Features),
    )


def _set_slope(model: nn.Module, slope: float, name: str) -> None:
    leaky = [module for module in model.modules() if isinstance(module, nn.LeakyReLU)]
    if not leaky:
        raise UserError(f"{name} has no LeakyReLU; take negative_slope out of vision.options")
    for module in leaky:
        module.negative_slope = slope


def _checkpoint(model: Any, encoder: VisionEncoder, name: str) -> None:
    """Recompute blocks in the backward pass, where timm does so inside the stages."""
    if isinstance(encoder, Staged) and not all(hasattr(stage, "grad_checkpointing") for stage in encoder.stages):
        raise UserError(f"timm's {name} has no gradient checkpointing by stage; take it out of vision.options")
    model.set_grad_checkpointing(True)


def _check_size(encoder: VisionEncoder, name: str, size: Size) -> None:
    patch = encoder.strides[0]
    if size[0] % patch or size[1] % patch:
        raise UserError(f"a frame of {size[0]} x {size[1]} is no multiple of the {patch} pixel patches of {name}")


def _build_own(vision: VisionConfig) -> VisionEncoder:
    """A class given by its dotted name; a file must hold exactly its state dict."""
    encoder = _own_class(vision.name)(**vision.options)
    if not isinstance(encoder, VisionEncoder):
        raise UserError(f"{vision.name} is no riszoo VisionEncoder; derive it from riszoo.encoders.base.VisionEncoder")
    if vision.weights == "pretrained":
        raise UserError(f"{vision.name} has no pretrained weights by name; give --model.vision.weights PATH or `none`")
    if vision.weights != "none":
        path = existing(vision.weights)
        fill(encoder, read_state(path), path).check(encoder)
        encoder.weight_file = path
    return encoder


def _own_class(name: str) -> Any:
    import timm

    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        near = difflib.get_close_matches(name, [*sam.SIZES, *timm.list_models()], n=1)
        hint = f"did you mean {near[0]}?" if near else "`timm.list_models()` lists the names"
        raise UserError(f"no vision encoder is called {name!r}; {hint}") from error

"""The base class of every model: the functions a model implements, and the steps all models share. READ FIRST.

A model is five functions from a batch to its output, and a loss. `RISModule` calls them in the same order for every
command:

    tokenize(texts) -> Tokens                            on the CPU, before the batch is transferred
    backbone(images, valid) -> Features                  independent of language; can be cached if it does not train
    enrich(Features) -> Features                         trainable layers on top, still independent of language
    encode_text(Tokens) -> Words
    decode(Features, image_index, Words) -> Output       combines sentences and images
    loss(Output, Batch) -> {name: (N,)}                  one weighted value for each sentence

An image is encoded once, however many sentences refer to it. A model with early fusion returns from `backbone` the
maps before language enters, and runs the later stages in `decode`. `decode` returns logits at any size: only a
protocol (riszoo/metrics) resizes and thresholds them.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from inspect import isabstract
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from typing_extensions import Self

from riszoo.batch import Batch, Features, GeometryKind, Output, Tokens, View, Words
from riszoo.data.controls import OF_CONTEXT, Control
from riszoo.encoders.base import TextConfig, TextEncoder, VisionConfig, VisionEncoder
from riszoo.encoders.darknet import check_pixels
from riszoo.encoders.text import build_text
from riszoo.encoders.vision import build_vision
from riszoo.errors import UserError
from riszoo.metrics.protocols import get_protocols
from riszoo.metrics.suite import RISMetrics
from riszoo.training.hyperparameters import record_hyperparameters
from riszoo.training.optim import Optim, apply_options, is_matrix, make_optimizer, moving_average, training_steps

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class RISModule(LightningModule, ABC):
    """A referring image segmentation model.

    Args:
        size: the network's frame, one side or (H, W)
        geometry: how an image is fitted into the frame
        mean, std: of the pixels, 0..255
        fill: grey value around the image; the mean if left out
        vision, text: the encoders
        optim: optimiser and schedule
        protocols: comma-separated names of evaluation protocols; `published` is the paper's own
        channels_last: use the channels_last memory format for images and convolutions
    """

    published: ClassVar[str] = "original"
    has_context: ClassVar[bool] = False
    """Whether the model passes the keys and values of its decoder through `context`."""
    reads_sentence: ClassVar[bool] = False
    """Whether the model reads `Words.sentence`, the vector that some text encoders give beside the words."""
    views: Sequence[View] = ()
    """Further inputs made from each original image; they reach `enrich` and `decode` as `Features.views`."""
    pixel_mean: Tensor
    pixel_std: Tensor
    pixel_fill: Tensor

    def __init__(
        self,
        *,
        size: int | tuple[int, int] = 480,
        geometry: GeometryKind = "squeeze",
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        fill: float | None = None,
        vision: VisionConfig = VisionConfig(),  # noqa: B008 - read only, and jsonargparse shows its fields
        text: TextConfig = TextConfig(),  # noqa: B008
        optim: Optim = Optim(),  # noqa: B008
        protocols: str = "original",
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        record_hyperparameters(self)
        self.size = (size, size) if isinstance(size, int) else (size[0], size[1])
        self.geometry = geometry
        self.optim = optim
        self.protocols = get_protocols(protocols, published=self.published)
        check_pixels(vision.weights, mean, std)
        self.vision: VisionEncoder = build_vision(vision, self.size)
        self.text: TextEncoder = build_text(text)
        if not self.reads_sentence:
            self.text.freeze_sentence()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        pixel_mean, pixel_std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
        pixel_fill = pixel_mean if fill is None else torch.full((3, 1, 1), fill)
        self.register_buffer("pixel_mean", pixel_mean, persistent=False)
        self.register_buffer("pixel_std", pixel_std, persistent=False)
        self.register_buffer("pixel_fill", (pixel_fill - pixel_mean) / pixel_std, persistent=False)
        self.control: Control = "none"
        self.controls: list[Control] = []
        self.suites: list[RISMetrics] = []
        self.loss_terms: dict[str, Tensor] = {}  # of the last training step, each (N,)
        self.class_path = f"{type(self).__module__}.{type(self).__qualname__}"  # sharding changes the class
        self.learned_tokens: frozenset[str] = frozenset()  # names of LearnedTokens that sharding has replaced

    # -- what a model implements ----------------------------------------------------------------------------------

    def tokenize(self, texts: list[str]) -> Tokens:
        """Sentences as padded token ids."""
        return self.text.tokenize(texts)

    def backbone(self, images: Tensor, valid: Tensor) -> Features:
        """Images (I, 3, H, W) uint8 and their boxes in the frame (I, 4) -> raw maps, each (I, C, h, w).

        `data.cache_features` stores the result, so it may use no weights other than those of `vision`.
        """
        return Features(self.vision(self.normalise(images, valid)), valid, self.size)

    def enrich(self, raw: Features) -> Features:
        """Trainable layers on the raw maps; none by default."""
        return raw

    def encode_image(self, images: Tensor, valid: Tensor, views: Sequence[Tensor] = ()) -> Features:
        """Everything about images that does not depend on the sentences."""
        return self.enrich(replace(self.backbone(images, valid), views=list(views)))

    def encode_text(self, tokens: Tokens) -> Words:
        """The word states of each sentence."""
        words: Words = self.text(tokens)
        return words

    @abstractmethod
    def decode(self, features: Features, image_index: Tensor, words: Words) -> Output:
        """Mask logits for each sentence, from the features of I images, the image of each sentence (N,), and the words.

        `features.per_sentence(image_index)` repeats each image's features for its sentences.
        """

    @abstractmethod
    def loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Weighted loss terms, each (N,). The value of a sentence must not depend on the rest of the batch."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *, revision: str | None = None, **options: Any
    ) -> Self:
        """The model of a folder or a repository of the Hugging Face Hub, in evaluation mode.

        `options` are those of `PyTorchModelHubMixin`: token, cache_dir, force_download, local_files_only.
        """
        from riszoo import from_pretrained

        class_path = "" if isabstract(cls) else f"{cls.__module__}.{cls.__qualname__}"
        place = os.fspath(pretrained_model_name_or_path)
        model = from_pretrained(place, revision=revision, model=class_path, **options)
        assert isinstance(model, cls)
        return model

    # -- helpers for models ---------------------------------------------------------------------------------------

    def level_at(self, stride: int) -> int:
        """Index of the map with the nearest stride; of two equally near the finer, of two equal strides the deeper."""
        strides = self.vision.strides
        return -min([(abs(math.log2(each / stride)), each, -i) for i, each in enumerate(strides)])[2]

    def channels_at(self, stride: int) -> int:
        """Channels of the map nearest to a stride."""
        return self.vision.channels[self.level_at(stride)]

    def grid_at(self, stride: int) -> tuple[int, int]:
        """Height and width of the grid of a stride over the frame."""
        return -(-self.size[0] // stride), -(-self.size[1] // stride)

    def map_at(self, maps: list[Tensor], stride: int) -> Tensor:
        """The map nearest to a stride, resized to that stride's grid where it differs."""
        nearest, grid = maps[self.level_at(stride)], self.grid_at(stride)
        return nearest if nearest.shape[-2:] == grid else F.interpolate(nearest, grid, mode="bilinear")

    def context(self, states: Tensor, mask: Tensor, image_index: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values (N, L, C) of the decoder and which of them count (N, L).

        They are as given but in an evaluation under a control: all zero under `constant`, those of the next sentence
        about the same image under `exchanged`.
        """
        if self.control == "constant":
            return torch.zeros_like(states), mask
        if self.control == "exchanged":
            following = next_of_same_image(image_index)
            return states[following], mask[following]
        return states, mask

    def normalise(self, images: Tensor, valid: Tensor) -> Tensor:
        """Normalise pixels by mean and std, and overwrite everything outside `valid` with the fill."""
        x = (images.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
        rows = torch.arange(x.shape[-2], device=x.device)
        cols = torch.arange(x.shape[-1], device=x.device)
        top, left, bottom, right = valid[:, :, None].unbind(1)  # (I, 1) each
        inside = ((rows >= top) & (rows < bottom))[:, None, :, None] & ((cols >= left) & (cols < right))[:, None, None]
        return torch.where(inside, x, self.pixel_fill).contiguous(memory_format=self.memory_format)

    # -- steps ----------------------------------------------------------------------------------------------------

    def cast_cached(self, raw: Features) -> Features:
        """Cached features in the model's dtype; autocast converts them by itself."""
        if torch.is_autocast_enabled(raw.valid.device.type):
            return raw
        return Features([one.to(self.pixel_mean.dtype) for one in raw.maps], raw.valid, raw.size)

    def forward(self, batch: Batch) -> Output:
        tokens = self.tokenize(batch.texts).to(batch.images.device) if batch.tokens is None else batch.tokens
        if batch.raw is None:
            features = self.encode_image(batch.images, batch.valid, batch.views)
        else:
            features = self.enrich(replace(self.cast_cached(batch.raw), views=batch.views))
        return self.decode(features, batch.image_index, self.encode_text(tokens))

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        batch.tokens = self.tokenize(batch.texts)
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        values = self._checked_loss(self(batch), batch)
        self.loss_terms = {name: value.detach() for name, value in values.items()}
        terms = {name: value.mean() for name, value in values.items()}
        total = torch.stack(list(terms.values())).sum()
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()}, batch_size=len(batch))
        self.log("loss", total.detach(), prog_bar=True, batch_size=len(batch))
        return total

    def _checked_loss(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss; raises UserError where a class's `decode` or `loss` returns another form."""
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        if output.logits.ndim != 4 or output.logits.shape[:2] != (len(batch), 1):
            raise UserError(
                f"{name}.decode returned logits of shape {tuple(output.logits.shape)} for {len(batch)} sentences: "
                "return (N, 1, h, w)"
            )
        values = self.loss(output, batch)
        if not isinstance(values, dict) or not values:
            raise UserError(f"{name}.loss returned {type(values).__name__}: return a dict of terms, each of shape (N,)")
        return values

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Output:  # type: ignore[override]
        self.control = self.controls[dataloader_idx]
        try:
            output: Output = self(batch)
        finally:
            self.control = "none"
        output.check_finite(batch)
        self.suites[dataloader_idx].update(output, batch)
        return output

    test_step = validation_step  # type: ignore[assignment]

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Output:
        output: Output = self(batch)
        output.check_finite(batch)
        return output

    # -- hooks of the trainer -------------------------------------------------------------------------------------

    def create_metrics(self, count: int) -> None:
        """Create one metric suite for each evaluated split, in the order of the data loaders."""
        self.suites = [RISMetrics(self.protocols).to(self.device) for _ in range(count)]

    def setup(self, stage: str) -> None:
        """Tell the data module which views and ground truths are needed, before any loader is created."""
        if self.memory_format is torch.channels_last:
            self.to(memory_format=self.memory_format)
        data = getattr(self.trainer, "datamodule", None)
        if data is not None:
            data.views = self.views
            data.ground_truths = list(dict.fromkeys(protocol.ground_truth for protocol in self.protocols))

    def configure_model(self) -> None:
        """Shard the model where the strategy is `fsdp2`."""
        if self.device_mesh is not None:
            from riszoo.training.sharding import shard

            shard(self, self.device_mesh["data_parallel"])

    def on_validation_epoch_start(self) -> None:
        self.controls = [control for _, control in self.trainer.datamodule.suites]  # type: ignore[attr-defined]
        changed = [control for control in OF_CONTEXT if control in self.controls]
        if changed and not self.has_context:
            raise UserError(
                f"--control {changed[0]}: the decoder of {type(self).__name__} has no keys and values that could be "
                "replaced; leave it out"
            )
        self.create_metrics(len(self.controls))

    def on_test_epoch_start(self) -> None:
        self.on_validation_epoch_start()

    def on_validation_epoch_end(self) -> None:
        """Log the first protocol's metrics of the first split, which select the best checkpoint."""
        if self.trainer.sanity_checking or not self.suites:
            return
        values = self.suites[0].compute()[self.protocols[0].name]
        logged = {f"val/{name}": torch.tensor(values[name], dtype=torch.float32) for name in ("mIoU", "oIoU")}
        self.log_dict(logged, prog_bar=True, rank_zero_only=True)

    def on_fit_start(self) -> None:
        batch = getattr(getattr(self.trainer, "datamodule", None), "device_batch", 2)
        trains = any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in self.modules())
        if batch == 1 and trains:
            raise UserError(
                "BatchNorm cannot be trained with one sentence per device: "
                "increase --data.batch_size or --data.total_batch_size"
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        steps = training_steps(self.trainer)
        if steps == float("inf"):
            raise UserError(
                "the learning rate follows the length of the training: give --trainer.max_steps or --budget"
            )
        optimizer, schedule = make_optimizer(self, self.optim, int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Options of the training hold from here on, also where it continues with others."""
        optimizer, schedule = self.optimizers(use_pl_optimizer=False), self.lr_schedulers()
        if isinstance(optimizer, torch.optim.AdamW) and isinstance(schedule, LambdaLR):  # not a subclass's own
            apply_options(optimizer, schedule, self.optim)

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether weight decay applies to a parameter under `optim.decayed: published`; by default, to matrices."""
        return is_matrix(name, parameter, self.learned_tokens)

    def learning_rate_group(self, name: str) -> str:
        """The learning rate of a parameter: that of `vision`, of `text`, or of `new` modules."""
        part = name.split(".", 1)[0]
        return part if part in ("vision", "text") else "new"

    def configure_callbacks(self) -> list[Callback]:
        return [WeightAveraging(multi_avg_fn=moving_average(self.optim.ema))] if self.optim.ema else []

    def parts(self) -> dict[str, nn.Module]:
        """The modules whose parameters `riszoo info` counts, by name."""
        return dict(self.named_children())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint.setdefault("riszoo", {})["class_path"] = self.class_path


def next_of_same_image(image_index: Tensor) -> Tensor:
    """(N,) -> (N,): for each sentence the next one about its image, after the last the first."""
    count = len(image_index)
    position = torch.arange(count, device=image_index.device)
    steps = (position - position[:, None] - 1) % count  # (N, N): from each sentence to each, its own position last
    other = image_index != image_index[:, None]
    return steps.masked_fill(other, count).argmin(1)

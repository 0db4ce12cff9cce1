"""BEiT-3's transformer: all positions attend to all, and each modality has its own linear maps and norms.

N sentences   L tokens   P patches   K = 1 + P + L positions   C channels   n heads   s side of the square image
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from riszoo.encoders.sam import ConvStem
from riszoo.errors import UserError
from riszoo.layers import attention, mean_valid, split_heads, to_tokens

UNUSED_ROWS = 2
"""Position tables count from this row on; the rows before it are in every file and are never read."""

Modality = Literal["image", "text"]


@dataclass
class Beit3Options:
    """The sizes of BEiT-3-large by default.

    side, patch     of the square image and of its patches, in pixels
    text_positions  rows of the position table of the text
    fused_layers    the first layers, in which image and text attend to each other; default all
    stem            `patch` as published, or `conv`, for training from scratch
    spread          initial linear weights and positions are within it, normal around 0
    """

    width: int = 1024
    layers: int = 24
    heads: int = 16
    side: int = 224
    patch: int = 16
    text_positions: int = 1024
    fused_layers: int | None = None
    stem: Literal["patch", "conv"] = "patch"
    spread: float = 0.02

    def __post_init__(self) -> None:
        """Report sizes that no network can have."""
        if self.width % self.heads:
            raise UserError(f"beit.width {self.width} must be a multiple of beit.heads ({self.heads})")
        if self.side < self.patch or self.side % self.patch:
            raise UserError(f"beit.side {self.side} must be a multiple of beit.patch ({self.patch})")
        if self.stem == "conv" and (self.patch < 2 or self.patch.bit_count() != 1):
            raise UserError(f"beit.patch {self.patch} must be a power of two with beit.stem conv: choose 8, 16 or 32")
        if self.layers < 1 or not 0 <= self.fused <= self.layers:
            raise UserError(f"beit.fused_layers {self.fused_layers} must be between 0 and beit.layers ({self.layers})")

    @property
    def fused(self) -> int:
        """The number of layers in which image and text attend to each other."""
        return self.layers if self.fused_layers is None else self.fused_layers


class Expert(nn.Module):
    """The maps and norms of one modality in a layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.attended_norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.expanded_norm = nn.LayerNorm(4 * width)
        self.contract = nn.Linear(4 * width, width)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of (N, Q, C)."""
        x = self.attention_norm(x)
        return self.q(x), self.k(x), self.v(x)

    def update(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add what the positions attended to, then the feed-forward: (N, Q, C) twice -> (N, Q, C)."""
        x = x + self.out(self.attended_norm(attended))
        hidden = nn.functional.gelu(self.expand(self.feed_forward_norm(x)))
        updated: Tensor = x + self.contract(self.expanded_norm(hidden))
        return updated

    def freeze_queries(self) -> None:
        """Exclude from training all that other positions do not read: everything but keys and values."""
        self.requires_grad_(False)
        for part in (self.attention_norm, self.k, self.v):
            part.requires_grad_(True)


class Layer(nn.Module):
    """One attention over image and text, between the experts of both."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image, self.text = Expert(width), Expert(width)

    def project(self, image: Tensor, text: Tensor) -> list[Tensor]:
        """Queries, keys and values (N, K, C) of image (N, 1 + P, C) and text (N, L, C)."""
        parts = zip(self.image.project(image), self.text.project(text), strict=True)
        return [torch.cat(pair, 1) for pair in parts]

    def update(self, image: Tensor, text: Tensor, attended: Tensor) -> tuple[Tensor, Tensor]:
        first, second = attended[:, : image.shape[1]], attended[:, image.shape[1] :]
        return self.image.update(image, first), self.text.update(text, second)


class Encoded(NamedTuple):
    """The last states of both modalities, and what the positions that are read attend to in the last layer."""

    image: Tensor  # (N, 1 + P, C)
    text: Tensor  # (N, L, C)
    attention: Tensor  # (N, K), mean over the heads


class Beit3(nn.Module):
    """The transformer between patches and token embeddings, and its last states."""

    def __init__(self, options: Beit3Options) -> None:
        super().__init__()
        self.heads, self.fused = options.heads, options.fused
        width, patches = options.width, (options.side // options.patch) ** 2
        self.patches: nn.Module = nn.Conv2d(3, width, options.patch, stride=options.patch)
        if options.stem == "conv":
            self.patches = ConvStem(width, options.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.image_position_embeddings = nn.Parameter(torch.empty(UNUSED_ROWS + 1 + patches, width))
        self.text_position_embeddings = nn.Parameter(torch.empty(options.text_positions, width))
        self.layers = nn.ModuleList(Layer(width) for _ in range(options.layers))
        self.image_norm, self.text_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.initialise(options.spread)

    def initialise(self, spread: float) -> None:
        """Linear maps and positions, cut at one standard deviation; the patches' convolution keeps PyTorch's values."""
        linear = [module for module in self.modules() if isinstance(module, nn.Linear)]
        tables = [self.image_position_embeddings, self.text_position_embeddings]
        for weight in [*(module.weight for module in linear), *tables]:
            nn.init.trunc_normal_(weight, std=spread, a=-spread, b=spread)
        for module in linear:
            nn.init.zeros_(module.bias)

    def embed_image(self, square: Tensor) -> Tensor:
        """A square image (I, 3, s, s) as patches (I, C, h, w), without positions."""
        patches: Tensor = self.patches(square)
        return patches.permute(0, 3, 1, 2) if isinstance(self.patches, ConvStem) else patches

    def forward(self, patches: Tensor, words: Tensor, mask: Tensor, read: Tensor | None = None) -> Encoded:
        """Patches (N, C, h, w), token embeddings (N, L, C) and which tokens are valid (N, L) -> their last states.

        `read` (N, L) are the tokens whose attention is returned; by default it is that of the image's [CLS].
        """
        cls = self.cls_token.to(patches.dtype).expand(words.shape[0], -1, -1)
        image = torch.cat([cls, to_tokens(patches)], 1) + self.image_position_embeddings[UNUSED_ROWS:]  # (N, 1 + P, C)
        positions = self.text_position_embeddings[UNUSED_ROWS : UNUSED_ROWS + words.shape[1]]
        text = (words + positions).masked_fill(~mask[..., None], 0)  # (N, L, C)
        valid = torch.cat([mask.new_ones(image.shape[:2]), mask], 1)[:, None]  # (N, 1, K)
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            allowed = valid if index < self.fused else valid & self.same_modality(image, text)
            query, key, value = layer.project(image, text)
            image, text = layer.update(image, text, attention(query, key, value, self.heads, allowed))
        if read is None:
            read, rows = mask.new_ones(mask.shape[0], 1), slice(1)
        else:
            rows = slice(image.shape[1], None)
        own = allowed if allowed.shape[1] == 1 else allowed[:, rows]
        attended = self.attention_of(query[:, rows].detach(), key.detach(), own, read)
        return Encoded(self.image_norm(image), self.text_norm(text), attended)

    def same_modality(self, image: Tensor, text: Tensor) -> Tensor:
        """(1, K, K) bool: whether query and key are both of the image, or both of the text."""
        is_text = torch.arange(image.shape[1] + text.shape[1], device=image.device) >= image.shape[1]
        return (is_text[:, None] == is_text)[None]

    def attention_of(self, query: Tensor, key: Tensor, allowed: Tensor, read: Tensor) -> Tensor:
        """Attention probabilities (N, K) over the keys (N, K, C), mean over the heads and the queries that are read.

        `query` is (N, Q, C), `read` (N, Q) and `allowed` (N, 1 or Q, K), both bool.
        """
        scores: Tensor = split_heads(query, self.heads) @ split_heads(key, self.heads).mT  # (N, n, Q, K)
        scores = scores.float() * (query.shape[-1] // self.heads) ** -0.5
        probabilities = scores.masked_fill(~allowed[:, None], -torch.inf).softmax(-1).mean(1)  # (N, Q, K)
        return mean_valid(probabilities, read)

    def freeze_unread(self, read: Modality) -> None:
        """Exclude from training what the states of one modality do not depend on."""
        other: Modality = "text" if read == "image" else "image"
        last = self.fused - 1  # the last layer in which the states that are read attend to the other modality
        for index, layer in enumerate(self.layers):
            expert = layer.get_submodule(other)
            assert isinstance(expert, Expert)
            if index == last:
                expert.freeze_queries()
            elif index > last:
                expert.requires_grad_(False)
        self.get_submodule(f"{other}_norm").requires_grad_(False)
        if last < 0:
            self.freeze_embedding(other)

    def freeze_embedding(self, modality: Modality) -> None:
        """Exclude a modality's positions from training, and the image's patches."""
        self.get_parameter(f"{modality}_position_embeddings").requires_grad_(False)
        if modality == "image":
            self.patches.requires_grad_(False)
            self.cls_token.requires_grad_(False)

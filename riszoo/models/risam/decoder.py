"""RISAM's mask decoders: SAM's, with tokens made of words (section 6 of docs/models/risam.md).

N sentences   L words   T tokens   d channels   h x w the grid, n = h w cells
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from segment_anything.modeling.mask_decoder import MLP
from torch import Tensor, nn

from riszoo.encoders.sam_decoder import MaskedTwoWayTransformer, upscaling
from riszoo.layers import LearnedToken, mean_valid, to_grid
from riszoo.models.risam.attention import Context
from riszoo.models.risam.options import Decoder

Tokens = tuple[Tensor, Tensor, Tensor]
"""Tokens (N, T, d), their position codes (N, T, d), and which of them are real (N, T)."""


class MaskDecoder(nn.Module, ABC):
    """SAM's mask decoder: tokens and cells attend to each other, then one token's weights make the mask."""

    def __init__(self, options: Decoder, width: int) -> None:
        super().__init__()
        self.options = options
        self.transformer = MaskedTwoWayTransformer(options.depth, width, options.heads, options.hidden)
        self.output_upscaling = upscaling(width)
        self.output_hypernetworks_mlps = nn.ModuleList([MLP(width, width, width // 8, 3)])

    @abstractmethod
    def tokens(self, words: Tensor, context: Context) -> Tokens:
        """Words (N, L, d) -> the decoder's tokens"""

    @abstractmethod
    def mask_token(self, tokens: Tensor, context: Context) -> Tensor:
        """Tokens after the transformer (N, T, d) -> the one that makes the mask (N, d)"""

    def forward(self, cells: Tensor, words: Tensor, context: Context, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Cells (N, n, d), words (N, L, d) -> logits (N, 1, 4 h, 4 w) and the mask token (N, d)"""
        tokens, codes, real = self.tokens(words, context)
        tokens, cells = self.transformer(tokens, cells, codes, context.cell_code, real, context.cell_mask)
        mask_token = self.mask_token(tokens, context)  # (N, d)
        weights = self.output_hypernetworks_mlps[0](mask_token)  # (N, d / 8)
        upscaled = self.output_upscaling(to_grid(cells, grid))  # (N, d / 8, 4 h, 4 w)
        logits = torch.einsum("nc,nchw->nhw", weights, upscaled)[:, None]
        return logits + self.options.start, mask_token


class WordDecoder(MaskDecoder):
    """`query` none: the words are the tokens, and their mean makes the mask."""

    def tokens(self, words: Tensor, context: Context) -> Tokens:
        codes = context.word_code.expand_as(words) if self.options.pos_l else torch.zeros_like(words)
        return words, codes, context.word_mask

    def mask_token(self, tokens: Tensor, context: Context) -> Tensor:
        return mean_valid(tokens, context.word_mask)


class MutualAwareMaskDecoder(WordDecoder):
    """`query` learned: tokens [q ; W], and the query token makes the mask. The query is its own position code."""

    def __init__(self, options: Decoder, width: int) -> None:
        super().__init__(options, width)
        self.query = LearnedToken(torch.randn(width))

    def tokens(self, words: Tensor, context: Context) -> Tokens:
        code = self.query.to(words.dtype).expand(words.shape[0], 1, -1)
        query = self.query_token(code, words, context)
        always = context.word_mask.new_ones(words.shape[0], 1)  # len() would fix the number in an exported graph
        if not self.options.words:
            return query, code, always
        words, codes, real = super().tokens(words, context)
        return torch.cat([query, words], 1), torch.cat([code, codes], 1), torch.cat([always, real], 1)

    def query_token(self, query: Tensor, words: Tensor, context: Context) -> Tensor:
        """(N, 1, d)"""
        return query

    def mask_token(self, tokens: Tensor, context: Context) -> Tensor:
        return tokens[:, 0]


class SentenceQueryDecoder(MutualAwareMaskDecoder):
    """`query` sentence: the mean word is added to the query token."""

    def query_token(self, query: Tensor, words: Tensor, context: Context) -> Tensor:
        return query + mean_valid(words, context.word_mask)[:, None]


class SamSparseDecoder(MaskDecoder):
    """`kind` sam_sparse: SAM's own tokens, and the sentence as their one sparse prompt (MARIS, Fig. 2)."""

    def __init__(self, options: Decoder, width: int) -> None:
        super().__init__(options, width)
        self.iou_token, self.mask_tokens = nn.Embedding(1, width), nn.Embedding(4, width)
        self.no_mask_embed = nn.Embedding(1, width)

    def forward(self, cells: Tensor, words: Tensor, context: Context, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        return super().forward(cells + self.no_mask_embed.weight, words, context, grid)

    def tokens(self, words: Tensor, context: Context) -> Tokens:
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).to(words.dtype)
        sentence = mean_valid(words, context.word_mask)[:, None]
        tokens = torch.cat([own.expand(words.shape[0], -1, -1), sentence], 1)
        return tokens, tokens, context.word_mask.new_ones(tokens.shape[:2])

    def mask_token(self, tokens: Tensor, context: Context) -> Tensor:
        return tokens[:, 1]


QUERIES: dict[str, type[MaskDecoder]] = {
    "learned": MutualAwareMaskDecoder,
    "sentence": SentenceQueryDecoder,
    "none": WordDecoder,
}


def build_decoder(options: Decoder, width: int) -> MaskDecoder:
    kind = SamSparseDecoder if options.kind == "sam_sparse" else QUERIES[options.query]
    return kind(options, width)

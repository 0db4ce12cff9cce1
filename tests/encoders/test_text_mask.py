"""The full attention mask of the transformers text encoders: equal states, and no host synchronisation."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig

from riszoo.batch import Tokens
from riszoo.encoders.transformer import TAKES_FULL_MASK, TransformerText, WordTokenizer, text_model_class

WORDS = ["the", "red", "man", "left", "of"]
SMALL = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    **{"embedding_size": 32, "dim": 32, "hidden_dim": 32, "n_layers": 2, "n_heads": 2},  # albert, electra, distilbert
    **{"d_model": 32, "num_layers": 2, "num_heads": 2, "d_kv": 16, "d_ff": 32},  # t5
}


def encoder(name: str, attention: str = "sdpa") -> TransformerText:
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, vocab_size=9, pad_token_id=0, attn_implementation=attention)
    config.update({option: value for option, value in SMALL.items() if hasattr(config, option)})
    return TransformerText(text_model_class(config, name)._from_config(config), WordTokenizer(WORDS), length=8).eval()


@pytest.mark.parametrize("name", sorted(TAKES_FULL_MASK))
def test_states_equal_those_of_the_padding_mask(name: str) -> None:
    model = encoder(name).double()
    assert model.full_mask
    tokens = model.tokenize(["the red man", "left", "the man left of the red man"])
    expected = model.model(input_ids=tokens.ids, attention_mask=tokens.mask.long()).last_hidden_state
    torch.testing.assert_close(model(tokens).states[tokens.mask], expected[tokens.mask], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted(TAKES_FULL_MASK))
def test_no_value_is_read_from_the_device(name: str) -> None:
    """A meta tensor has no values; without padding transformers would otherwise check whether to drop the mask."""
    model = encoder(name).to("meta")
    mask = torch.ones(2, 5, dtype=torch.bool, device="meta")
    states = model(Tokens(mask.long(), mask, [[], []])).states
    assert tuple(states.shape) == (2, 5, 32)


def test_eager_attention_gets_the_padding_mask() -> None:
    """Eager attention adds its mask to the scores, so a full boolean one would have no effect."""
    eager, sdpa = encoder("bert", "eager").double(), encoder("bert").double()
    assert not eager.full_mask
    tokens = eager.tokenize(["the red man", "left"])
    torch.testing.assert_close(eager(tokens).states, sdpa(tokens).states, rtol=1e-9, atol=1e-9)

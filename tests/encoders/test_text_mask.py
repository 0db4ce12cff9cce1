"""The ready-made mask of the transformers text encoders: the same states, and no step that waits for the device."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig

from riszoo.batch import Tokens
from riszoo.encoders.transformer import READY, TransformerText, WordTokenizer, _model_class

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
    return TransformerText(_model_class(config, name)._from_config(config), WordTokenizer(WORDS), length=8).eval()


@pytest.mark.parametrize("name", sorted(READY))
def test_the_states_are_those_of_the_padding_alone(name: str) -> None:
    model = encoder(name)
    assert model.ready
    tokens = model.tokenize(["the red man", "left", "the man left of the red man"])
    theirs = model.model(input_ids=tokens.ids, attention_mask=tokens.mask.long()).last_hidden_state
    torch.testing.assert_close(model(tokens).states[tokens.mask], theirs[tokens.mask])


@pytest.mark.parametrize("name", sorted(READY))
def test_nothing_is_asked_of_the_device(name: str) -> None:
    """A tensor without memory has no value to wait for; sentences of one length would tempt to leave the mask out."""
    model = encoder(name).to("meta")
    mask = torch.ones(2, 5, dtype=torch.bool, device="meta")
    states = model(Tokens(mask.long(), mask, [[], []])).states
    assert tuple(states.shape) == (2, 5, 32)


def test_other_attention_gets_the_padding() -> None:
    """Eager attention adds its mask: a ready one of booleans would hide nothing."""
    ours, theirs = encoder("bert", "eager"), encoder("bert")
    assert not ours.ready
    tokens = ours.tokenize(["the red man", "left"])
    torch.testing.assert_close(ours(tokens).states, theirs(tokens).states)

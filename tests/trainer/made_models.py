"""The real classes, tiny and random, in a folder as diffusers lays out a pipeline."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cpu_torchvision
import pytest
import torch


def made_models(folder: Path) -> Path:
    """A pipeline's folder with an AutoencoderKLWan, a umT5 with a tokenizer of a few words, and a CLIP, all tiny and random."""
    for name in ("diffusers", "transformers"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    cpu_torchvision.install()
    from diffusers import AutoencoderKLWan
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1).save_pretrained(folder / "vae")
    config = UMT5Config(vocab_size=12, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    UMT5EncoderModel(config).save_pretrained(folder / "text_encoder")
    words = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", "a", "man", "walks", "and", "sings"])}
    raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    made = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    made.save_pretrained(folder / "tokenizer")
    clip = CLIPVisionConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14)
    CLIPVisionModel(clip).save_pretrained(folder / "image_encoder")
    return folder

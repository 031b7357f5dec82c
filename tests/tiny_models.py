"""Published pipelines with tiny random weights, saved as their real loaders expect them. Pictures made by them are noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cpu_torchvision

cpu_torchvision.install()


def wan_animate(folder: Path) -> Path:
    """WanAnimatePipeline with some 80,000 parameters."""
    import torch
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanAnimatePipeline, WanAnimateTransformer3DModel
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    tokenizer = _t5_tokenizer()
    pipe = WanAnimatePipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(
            UMT5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4, is_encoder_decoder=False)
        ),
        vae=AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0),
        image_processor=CLIPImageProcessor(crop_size=4, size=4),
        image_encoder=CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=4, projection_dim=4, num_hidden_layers=2, num_attention_heads=2, image_size=4, intermediate_size=16,
                patch_size=1,
            )
        ),
        transformer=WanAnimateTransformer3DModel(
            num_attention_heads=2, attention_head_dim=12, text_dim=32, ffn_dim=32, num_layers=2, image_dim=4, rope_max_seq_len=64,
            motion_encoder_channel_sizes={"4": 16, "8": 16, "16": 16}, motion_encoder_size=16, motion_style_dim=8, motion_dim=4,
            motion_encoder_dim=16, face_encoder_hidden_dim=16, face_encoder_num_heads=2, inject_face_latents_blocks=2,
        ),
    )  # fmt: skip
    return _saved(pipe, folder)


def parameters(pipe: Any) -> int:
    """Of all models of a pipeline together."""
    return sum(p.numel() for part in pipe.components.values() if hasattr(part, "parameters") for p in part.parameters())


def _saved(pipe: Any, folder: Path) -> Path:
    pipe.save_pretrained(folder)
    return folder


def _t5_tokenizer() -> Any:
    from transformers import T5Tokenizer

    pieces = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyzAP.,"]
    return T5Tokenizer(vocab=[(piece, 0.0 if i < 3 else -float(i)) for i, piece in enumerate(pieces)], extra_ids=0)

"""Published pipelines with tiny random weights, saved as their real loaders expect them. Pictures made by them are noise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cpu_torchvision

cpu_torchvision.install()


def wan_animate(folder: Path) -> Path:
    """WanAnimatePipeline with some 80,000 parameters."""
    import torch
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanAnimatePipeline, WanAnimateTransformer3DModel
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

    _settled(torch)
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


def flux2_klein(folder: Path) -> Path:
    """Flux2KleinPipeline with some 120,000 parameters. Its prompt is read from layers 9, 18 and 27 of the text model."""
    import torch
    from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Transformer2DModel
    from transformers import Qwen3Config, Qwen3ForCausalLM

    _settled(torch)
    tokenizer = _qwen_tokenizer()
    pipe = Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_flux2_vae(AutoencoderKLFlux2),
        text_encoder=Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=27, num_attention_heads=2,
                num_key_value_heads=2, head_dim=8, max_position_embeddings=512,
            )
        ),
        tokenizer=tokenizer,
        transformer=Flux2Transformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=48,
            axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
        ),
    )  # fmt: skip
    return _saved(pipe, folder)


def flux2_dev(folder: Path) -> Path:
    """Flux2Pipeline, the one of FLUX.2 [dev], with some 150,000 parameters. Its prompt is read from layers 10, 20 and 30 of a Mistral 3."""
    import torch
    from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Pipeline, Flux2Transformer2DModel
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration, PixtralImageProcessor, PixtralProcessor

    _settled(torch)
    tokenizer = _qwen_tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    text = {
        "model_type": "mistral", "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 30,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512,
    }  # fmt: skip
    vision = {
        "model_type": "pixtral", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 4,
        "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    config = Mistral3Config(
        text_config=text, vision_config=vision, image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"), multimodal_projector_bias=False
    )
    pipe = Flux2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_flux2_vae(AutoencoderKLFlux2),
        text_encoder=Mistral3ForConditionalGeneration(config),
        tokenizer=PixtralProcessor(PixtralImageProcessor(), tokenizer, patch_size=14, chat_template=tokenizer.chat_template),
        transformer=Flux2Transformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=48,
            axes_dims_rope=(4, 4, 4, 4),
        ),
    )  # fmt: skip
    return _saved(pipe, folder)


def qwen_edit(folder: Path) -> Path:
    """QwenImageEditPlusPipeline. Use `small_references` with it: the sizes it scales references to are constants."""
    import torch
    from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageEditPlusPipeline, QwenImageTransformer2DModel
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    _settled(torch)
    tokenizer = _qwen_tokenizer()
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}_pad|>") for name in ("image", "video")}
    ids |= {f"vision_{end}_token_id": tokenizer.convert_tokens_to_ids(f"<|vision_{end}|>") for end in ("start", "end")}
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16, "patch_size": 14,
        "fullatt_block_indexes": [1],
    }  # fmt: skip
    pipe = QwenImageEditPlusPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=AutoencoderKLQwenImage(
            base_dim=4, z_dim=4, dim_mult=[1, 2, 4], num_res_blocks=1, temperal_downsample=[False, True], latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        text_encoder=Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)),
        tokenizer=tokenizer,
        processor=Qwen2VLProcessor(Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor()),
        transformer=QwenImageTransformer2DModel(
            in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=16,
            axes_dims_rope=(8, 4, 4),
        ),
    )  # fmt: skip
    return _saved(pipe, folder)


@contextlib.contextmanager
def small_references() -> Iterator[None]:
    """References of 64² instead of 1024² pixels for Qwen-Image-Edit."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as module

    before = module.CONDITION_IMAGE_SIZE, module.VAE_IMAGE_SIZE
    module.CONDITION_IMAGE_SIZE, module.VAE_IMAGE_SIZE = 56 * 56, 64 * 64
    yield
    module.CONDITION_IMAGE_SIZE, module.VAE_IMAGE_SIZE = before


def parameters(pipe: Any) -> int:
    """Of all models of a pipeline together."""
    return sum(p.numel() for part in pipe.components.values() if hasattr(part, "parameters") for p in part.parameters())


def _settled(torch: Any) -> None:
    """The same weights each time; and one thread, for with more, such small matrices are mostly waiting where other tests run beside."""
    torch.manual_seed(0)
    torch.set_num_threads(1)


def _saved(pipe: Any, folder: Path) -> Path:
    pipe.save_pretrained(folder)
    return folder


def _flux2_vae(kind: Any) -> Any:
    """As deep as the real one: a token is 16×16 pixels. With fewer levels a reference has more tokens than a CPU can attend to."""
    return kind(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(4,) * 4,
        layers_per_block=1, latent_channels=4, norm_num_groups=1, sample_size=32,
    )  # fmt: skip


def _t5_tokenizer() -> Any:
    from transformers import T5Tokenizer

    pieces = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyzAP.,"]
    return T5Tokenizer(vocab=[(piece, 0.0 if i < 3 else -float(i)) for i, piece in enumerate(pieces)], extra_ids=0)


def _qwen_tokenizer(*more_special: str) -> Any:
    """Bytes only, and the special tokens that the pipelines' prompts use."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    special = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", *more_special]
    vocabulary = {piece: i for i, piece in enumerate(["<|endoftext|>", *sorted(ByteLevel.alphabet())])}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], additional_special_tokens=special)
    said = "{{ m.content if m.content is string else m.content[0].text }}"
    tokenizer.chat_template = f"{{% for m in messages %}}<|im_start|>{{{{ m.role }}}}\n{said}<|im_end|>\n{{% endfor %}}"
    return tokenizer

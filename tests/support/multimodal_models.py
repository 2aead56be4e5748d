"""Tiny models whose text part is one of several, as Gemma 3 from 4B on: random weights, and the files as published."""

from importlib.util import find_spec
from pathlib import Path

import torch
from model_families import FAMILIES, build_tokenizer, write_pieces
from safetensors.torch import load_file, save_file

from helpers.runs.files import read_json, write_json

IMAGE = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
TEXT = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 32}
TEXT |= {"num_key_value_heads": 2, "max_position_embeddings": 2048, "sliding_window": 16, "sliding_window_pattern": 2}
TEXT |= {"model_type": "gemma3_text", "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION |= {"image_size": 28, "patch_size": 7, "vision_use_head": False}
LAYOUTS = {  # of the weights' names: {what transformers 5.17 saves: what stands in its place}
    "published": {"vision_tower.": "vision_tower.vision_model."},
    "in memory": {
        "language_model.model.": "model.language_model.",
        "vision_": "model.vision_",
        "multi_": "model.multi_",
    },
}
OTHER_FILES = {
    "processor_config.json": {"image_seq_length": 4, "processor_class": "Gemma3Processor"},
    "preprocessor_config.json": {"image_processor_type": "Gemma3ImageProcessor", "size": {"height": 28, "width": 28}},
}


def save_gemma3(texts, folder, layout="published"):
    """Saves a tiny Gemma 3 with a vision tower in a folder, its weights named as in LAYOUTS."""
    import transformers

    folder, tokenizer = Path(folder), build_tokenizer(FAMILIES["Gemma 3"], texts)
    if find_spec("sentencepiece"):
        folder.mkdir(parents=True)
        write_pieces(FAMILIES["Gemma 3"], tokenizer, folder / "tokenizer.model")  # where tokens of images are missing
    tokenizer.add_special_tokens({"extra_special_tokens": [*IMAGE.values()]})
    images = {f"{name}_index": tokenizer.convert_tokens_to_ids(token) for name, token in IMAGE.items()}
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "pad")}
    ids["eos_token_id"] = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")]
    text = {**TEXT, "vocab_size": len(tokenizer) + 3}  # more than the tokenizer has, as published
    config = transformers.Gemma3Config(
        text_config=dict(text), vision_config=VISION, mm_tokens_per_image=4, **images, **ids
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.Gemma3ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    rename_weights(folder / "model.safetensors", LAYOUTS[layout])
    for name, content in OTHER_FILES.items():
        write_json(folder / name, content)
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "text_config": text})
    named = {**IMAGE, "processor_class": "Gemma3Processor", "extra_special_tokens": IMAGE}
    write_json(folder / "tokenizer_config.json", {**read_json(folder / "tokenizer_config.json"), **named})
    return folder


def rename_weights(file, beginnings):
    """Gives the weights of a file other names: {how they begin: with what instead}."""

    def rename(name):
        begin = next((begin for begin in beginnings if name.startswith(begin)), "")
        return beginnings.get(begin, "") + name.removeprefix(begin)

    save_file({rename(name): weight for name, weight in load_file(file).items()}, file, {"format": "pt"})


def save_in_4bit(whole, folder, in_16_bits):
    """Saves a copy in 4 bits of a whole model, but for a layer named as published, and returns it."""
    import transformers

    kept = ["lm_head", "model.multi_modal_projector", "model.vision_tower"]
    kept.append(in_16_bits.replace("language_model.model.", "model.language_model."))
    quantization = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype="bfloat16", llm_int8_skip_modules=kept
    )
    model = transformers.Gemma3ForConditionalGeneration.from_pretrained(
        whole, quantization_config=quantization, dtype=torch.bfloat16, device_map={"": "cpu"}
    )
    model.save_pretrained(folder)
    config = read_json(folder / "config.json")
    config["quantization_config"]["llm_int8_skip_modules"] = ["lm_head", "vision_tower", in_16_bits]
    write_json(folder / "config.json", config)
    return model

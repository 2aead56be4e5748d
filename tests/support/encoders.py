"""Small random encoders, made here: a BERT or an XLM-R with a tokenizer of their own."""

import json
from types import SimpleNamespace

from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

TEXTS = [
    "আমার মন ভালো নেই, কাল পরীক্ষা।",
    "আপনার কষ্ট বুঝতে পারছি; আমি পাশে আছি।",
    "চাকরি চলে গেছে, কী করব বুঝতে পারছি না।",
    "বাবা হাসপাতালে, খুব ভয় করছে।",
    "র\u200d্যাব, স্বাস্থ্য, ক্ষমা আর কুয়াশা।",
    "office-এ boss খুব রাগী, stress হচ্ছে",
]
NAMES = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
WIDTH = 32


def make_tokenizer(folder):
    """Saves a byte-level tokenizer of these texts in a folder, and returns how many tokens it has."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    bytewise = {"special_tokens": NAMES, "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=400, **bytewise))
    ends = [("[CLS]", 1), ("[SEP]", 2)]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    special = dict(zip(("pad_token", "cls_token", "sep_token", "unk_token", "mask_token"), NAMES))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return tokenizer.get_vocab_size()


def make_encoder(folder, kind="bert", positions=64):
    """Saves a random encoder ("bert" or "xlm-r") and its tokenizer in a folder, and returns its name."""
    import torch
    import transformers

    names = {"bert": ("BertConfig", "BertModel"), "xlm-r": ("XLMRobertaConfig", "XLMRobertaModel")}
    config, model = (getattr(transformers, name) for name in names[kind])
    torch.manual_seed(0)
    shape = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"vocab_size": make_tokenizer(folder), "max_position_embeddings": positions, "pad_token_id": 0}
    model(config(**shape)).save_pretrained(folder)
    return str(folder)


def add_modules(folder, pooling, dense=False, kind="Pooling"):
    """Writes what a sentence-transformers folder has besides: the pooling's file, and a Dense layer of half the width;
    returns that layer's weight and bias."""
    import torch
    from safetensors.torch import save_file

    modules = [("", "Transformer"), ("1_Pooling", kind), *([("2_Dense", "Dense")] if dense else []), ("3", "Normalize")]
    listed = [{"path": path, "type": f"sentence_transformers.models.{own}"} for path, own in modules]
    (folder / "modules.json").write_text(json.dumps(listed), "utf-8")
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling), "utf-8")
    layer = torch.nn.Linear(WIDTH, WIDTH // 2)
    if dense:
        (folder / "2_Dense").mkdir()
        sizes = {"in_features": WIDTH, "out_features": WIDTH // 2, "bias": True}
        sizes["activation_function"] = "torch.nn.modules.activation.Tanh"
        (folder / "2_Dense/config.json").write_text(json.dumps(sizes), "utf-8")
        weights = {f"linear.{name}": value for name, value in layer.state_dict().items()}
        save_file(weights, folder / "2_Dense/model.safetensors")
    return SimpleNamespace(weight=layer.weight.detach().numpy(), bias=layer.bias.detach().numpy())

"""An encoder's vectors: what is pooled, cut, and refused."""

import json

import numpy
import pytest
from encoders import TEXTS, WIDTH, add_modules, make_encoder, make_tokenizer

from helpers.evaluation import encoder as module
from helpers.evaluation.encoder import check_encoder, embed_texts, is_folder_name, load_encoder, pick_device

LONG = " ".join(TEXTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    make_encoder(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(folder):
    return load_encoder(str(folder), "cpu")


def hidden_states(encoder, text):
    """Returns the vectors of a text's tokens, computed alone and without a pad."""
    import torch

    with torch.inference_mode():
        return encoder.network(**encoder.tokenizer(text, return_tensors="pt"))[0][0].numpy()


def unit(vector):
    return vector / numpy.linalg.norm(vector)


def test_a_batch_gives_each_text_the_vector_it_has_alone(encoder):
    """Padding is neither read nor averaged."""
    together, _ = embed_texts(encoder, [*TEXTS, LONG])
    alone = [embed_texts(encoder, [text])[0][0] for text in [*TEXTS, LONG]]
    assert numpy.abs(together - alone).max() < 1e-6


def test_the_mean_is_over_all_tokens(encoder):
    vectors, _ = embed_texts(encoder, TEXTS)
    for text, vector in zip(TEXTS, vectors):
        assert vector == pytest.approx(unit(hidden_states(encoder, text).mean(axis=0)), abs=1e-6)


def test_equal_texts_have_a_cosine_of_one_and_others_less(encoder):
    vectors, _ = embed_texts(encoder, [TEXTS[0], TEXTS[0], TEXTS[3]])
    assert vectors[0] @ vectors[1] == pytest.approx(1)
    assert vectors[0] @ vectors[2] < 0.999


def test_two_spellings_of_one_text_are_one(encoder):
    """য় as one code point or with a nukta, a bidi mark, doubled spaces."""
    vectors, cut = embed_texts(encoder, ["ভ\u09df করছে", "ভ\u09af\u09bc  করছে\u200f"])
    assert vectors[0] @ vectors[1] == pytest.approx(1)
    assert cut == 0


def test_a_joiner_of_a_conjunct_is_read(encoder):
    """র‍্যাব with a zero-width joiner is another word than র্যাব."""
    vectors, _ = embed_texts(encoder, ["র\u200d্যাব", "র্যাব"])
    assert vectors[0] @ vectors[1] < 0.9999


def test_an_empty_text_is_like_nothing(encoder):
    vectors, _ = embed_texts(encoder, ["", " \u200f\n", TEXTS[0]])
    assert not vectors[:2].any()
    assert numpy.linalg.norm(vectors[2]) == pytest.approx(1)


def test_texts_over_the_limit_are_cut_and_counted(encoder):
    assert encoder.max_tokens == 64
    vectors, cut = embed_texts(encoder, [LONG, f"{LONG} {TEXTS[0]}", TEXTS[0]])
    assert cut == 2
    assert vectors[0] @ vectors[1] == pytest.approx(1), "what stands behind the limit is not read"


def test_an_xlm_r_has_fewer_places_than_its_table(tmp_path):
    """Its positions begin behind the pad's: a text of as many tokens as its table has rows ends in an error."""
    encoder = load_encoder(make_encoder(tmp_path, "xlm-r"), "cpu")
    assert encoder.max_tokens == 63
    assert embed_texts(encoder, [LONG])[1] == 1


def test_the_limit_of_a_sentence_transformers_folder_is_kept(tmp_path):
    make_encoder(tmp_path)
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16}), "utf-8")
    assert load_encoder(str(tmp_path), "cpu").max_tokens == 16


@pytest.mark.parametrize(
    ("config", "pooled"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, lambda states: states[0]),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, lambda states: states[-1]),
        ({"pooling_mode": "cls"}, lambda states: states[0]),
        ({"pooling_mode": "mean"}, lambda states: states.mean(axis=0)),
    ],
)
def test_the_pooling_of_a_sentence_transformers_folder_is_used(tmp_path, config, pooled):
    make_encoder(tmp_path)
    add_modules(tmp_path, config)
    encoder = load_encoder(str(tmp_path), "cpu")
    vectors, _ = embed_texts(encoder, TEXTS)
    assert vectors[1] == pytest.approx(unit(pooled(hidden_states(encoder, TEXTS[1]))), abs=1e-6)


def test_a_layer_after_the_pooling_is_applied(tmp_path):
    make_encoder(tmp_path)
    layer = add_modules(tmp_path, {"pooling_mode": "cls"}, dense=True)
    encoder = load_encoder(str(tmp_path), "cpu")
    vectors, _ = embed_texts(encoder, TEXTS)
    expected = numpy.tanh(layer.weight @ hidden_states(encoder, TEXTS[0])[0] + layer.bias)
    assert vectors.shape == (len(TEXTS), WIDTH // 2)
    assert vectors[0] == pytest.approx(unit(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("config", "kind", "reason"),
    [
        ({"pooling_mode": "max"}, "Pooling", "its pooling is max"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "Pooling", "its pooling is cls and mean"),
        ({}, "LSTM", "names LSTM"),
    ],
)
def test_what_is_not_known_of_a_folder_is_refused(tmp_path, config, kind, reason):
    make_encoder(tmp_path)
    add_modules(tmp_path, config, kind=kind)
    with pytest.raises(ValueError, match=reason):
        load_encoder(str(tmp_path), "cpu")


def test_a_language_model_is_no_encoder(base):
    with pytest.raises(ValueError, match=r"is a language model \(LlamaForCausalLM\): expected an encoder"):
        load_encoder(str(base), "cpu")


def test_an_encoder_with_a_decoder_is_refused(tmp_path):
    from transformers import T5Config

    make_tokenizer(tmp_path)
    T5Config(is_encoder_decoder=True).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is an encoder with a decoder"):
        load_encoder(str(tmp_path), "cpu")


def test_weights_that_are_missing_are_not_made_up(tmp_path):
    """transformers fills in random numbers for them, and only warns."""
    from safetensors.torch import load_file, save_file

    make_encoder(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layer.1." not in name}
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="lacks weights of an encoder, 16 in all"):
        load_encoder(str(tmp_path), "cpu")


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    import torch

    encoder = load_encoder(make_encoder(tmp_path), "cpu")
    torch.nn.init.constant_(encoder.network.embeddings.LayerNorm.weight, float("inf"))
    with pytest.raises(ValueError, match="not finite"):
        embed_texts(encoder, TEXTS)


@pytest.mark.parametrize(
    ("name", "is_folder"),
    [
        ("sentence-transformers/LaBSE", False),
        ("bert-base-multilingual-cased", False),
        ("./encoder", True),
        ("../models/encoder", True),
        ("/kaggle/input/labse", True),
        ("~/labse", True),
        ("models/encoders/labse", True),
    ],
)
def test_a_name_of_the_hub_is_told_from_a_folder(name, is_folder):
    assert is_folder_name(name) is is_folder


def test_a_folder_that_is_not_here_is_refused(tmp_path, folder):
    check_encoder("")
    check_encoder("owner/name-that-nobody-looks-up")
    check_encoder(str(folder))
    with pytest.raises(FileNotFoundError, match=r"evaluate\.encoder is '.*absent': no such folder"):
        check_encoder(str(tmp_path / "absent"))


def test_the_gpu_with_the_most_free_memory_is_taken(monkeypatch):
    free = {0: 3, 1: 9, 2: 5}
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda gpu: (free[gpu], 16))
    assert pick_device() == "cuda:1"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert pick_device() == "cpu"


def test_batches_of_a_few_tokens_change_nothing(encoder, monkeypatch):
    whole, _ = embed_texts(encoder, TEXTS)
    monkeypatch.setattr(module, "ENCODER_TOKENS", 1)
    assert numpy.abs(embed_texts(encoder, TEXTS)[0] - whole).max() < 1e-6

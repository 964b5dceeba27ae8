"""Writes test/fixtures/tokenizers/*.json: small tokenizers of the families of public ones, texts, and the ids that the Python library
`tokenizers` (0.23.3) gives for them. Needs `pip install tokenizers==0.23.3 sentencepiece protobuf`; the tests need none of it.
Run: python scripts/tokenizers/make-fixtures.py"""
import io
import json
import os

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers as N, pre_tokenizers as P, trainers

OUT = os.path.join(os.path.dirname(__file__), "../../test/fixtures/tokenizers")
GPT4 = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|" + GPT4
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = [r"[\r\n]", r"\s?[A-Za-z\u00b5\u00c0-\u00d6\u0400-\u0481]+", r"\s?[!-/:-~\uff01-\uff0f]+", r"\s+$", r"[\u4e00-\u9fa5\u0800-\u4e00]+"]
PROSE = (
    "Rain falls on the stone, and the river keeps every small word that passes by. It isn't late; we'll wait, and they've 1234567 "
    "reasons. \"Who's there?\" she asked -- nobody. Naïve cafés, Ångström's law, e\u0301tude, ﬁne ½ m² №5, 'ſ and \u212a, I'LL, WE'RE.\n\n"
    "A second paragraph follows.\nThen a third!?\n\n\n  Indented.  Two  spaces   three. \t Tab.\n"
)
CODE = "def f(a, [\n    b,\n]) -> int:\n\treturn a_b[0x1F] != 'x' and __init__  # comment\n\n\nif (x) {\n  y();\n}\n"
CRLF = "first line.\r\nsecond line,\r\n\r\n  third: (\r\n\r\n\r\nend)\r\n"
CHINESE = "天地玄黃，宇宙洪荒。日月盈昃,辰宿列張。\n寒來暑往「秋收冬藏」閏餘成歲律呂調陽雲騰致雨露結為霜金生麗水玉出崑岡 Latin 夾雜 12 字。\n"
EMOJI = "👩\u200d👧 🎉🎉👍🏽 flags 🇩🇪🇫🇷 and ☀\ufe0f text 🤷\u200d♂\ufe0f!\n"
OTHERS = (
    "Привет, мир! Ёлка. ΟΔΥΣΣΕΥΣ σοφός. こんにちは世界。ｶﾞｷﾞ が 한국어 \u1112\u1161\u11ab 문장. हिन्दी में पाठ, ไทย ข้อความ, العربية נץ.\n"
    "one\u0085two\u0085\n three\u00a0four\u3000five\u2028six\ufeffseven\u200beight\x07\x7f\ufffd ▁ \u2160 \u0661\u0967\n"
)
SPECIAL = (
    "a<|endoftext|>b <|endoftext|> c<|im_end|>\n<|im_end|>\n\n<tool_call> x </s>y </s> <mask>  z  <mask>\n[MASK] the theme the.the\n"
    "\n\n\n\nmany      spaces  <|endoftext|>  <s><s>end café cafés"
)
TEXTS = {"empty": "", "space": " ", "spaces": "  a  ", "prose": PROSE, "code": CODE, "crlf": CRLF, "chinese": CHINESE, "emoji": EMOJI,
         "others": OTHERS, "special": SPECIAL}
TRAINING = [PROSE, CODE, CRLF, CHINESE, EMOJI, OTHERS] * 20
ALPHABET = P.ByteLevel.alphabet()
BYTES = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]


def train(model, trainer, pre=None, normalizer=None, decoder=None, added=()):
    tokenizer = Tokenizer(model)
    if pre:
        tokenizer.pre_tokenizer = pre
    if normalizer:
        tokenizer.normalizer = normalizer
    if decoder:
        tokenizer.decoder = decoder
    tokenizer.train_from_iterator(TRAINING, trainer)
    for token in added:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    return tokenizer


def byte_level(pre, normalizer=None, added=(), vocab=420, **options):
    special = ["<|endoftext|>"]
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=special, initial_alphabet=ALPHABET, show_progress=False)
    return train(models.BPE(**options), trainer, pre, normalizer, decoders.ByteLevel(), added)


def split_by(*patterns, behavior="isolated"):
    bytes_last = P.ByteLevel(add_prefix_space=False, use_regex=False)
    return P.Sequence([P.Split(Regex(pattern), behavior) for pattern in patterns] + [bytes_last])


def sentencepiece_bpe(pre, normalizer, added=()):
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=BYTES, show_progress=False, max_token_length=8)
    model = models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return train(model, trainer, pre, normalizer, decoder, added)


def bpe(pre, normalizer=None, vocab=260, trainer={}, **options):
    made = trainers.BpeTrainer(vocab_size=vocab, special_tokens=["<unk>"], show_progress=False, limit_alphabet=150, **trainer)
    return train(models.BPE(unk_token="<unk>", **options), made, pre, normalizer)


def word_piece(normalizer, pre=P.BertPreTokenizer()):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=420, special_tokens=special, show_progress=False)
    return train(models.WordPiece(unk_token="[UNK]"), trainer, pre, normalizer, decoders.WordPiece())


def unigram(pre, normalizer):
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False)
    return train(models.Unigram(), trainer, pre, normalizer, decoders.Metaspace())


def word_level(pre, added=()):
    trainer = trainers.WordLevelTrainer(vocab_size=250, special_tokens=["[UNK]"], show_progress=False)
    return train(models.WordLevel(unk_token="[UNK]"), trainer, pre, added=added)


def sentencepiece_unigram():
    """SentencePiece's own model with its precompiled map of characters, as the converters of transformers write it."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter("".join(TRAINING).split("\n")), model_writer=file, vocab_size=500, model_type="unigram",
        normalization_rule_name="nmt_nfkc", hard_vocab_limit=False, minloglevel=2)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(file.getvalue())
    tokenizer = Tokenizer(models.Unigram([(piece.piece, piece.score) for piece in proto.pieces], unk_id=0))
    tokenizer.normalizer = N.Sequence([N.Precompiled(proto.normalizer_spec.precompiled_charsmap), N.Replace(Regex(" {2,}"), "▁")])
    tokenizer.pre_tokenizer = P.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def raw(content, **options):
    return AddedToken(content, normalized=False, **options)


SPACES = [AddedToken(" " * count, normalized=True) for count in range(2, 9)]
LLAMA2 = N.Sequence([N.Prepend("▁"), N.Replace(" ", "▁")])
FAMILIES = {
    "gpt2": byte_level(P.ByteLevel(add_prefix_space=False)),
    "roberta": byte_level(P.ByteLevel(add_prefix_space=True), added=[raw("<mask>", lstrip=True, special=True)]),
    "gpt-neox": byte_level(P.ByteLevel(add_prefix_space=False), N.NFC(), SPACES),
    "llama3": byte_level(split_by(LLAMA3), added=[raw("<|im_end|>", special=True)], ignore_merges=True),
    "qwen": byte_level(split_by(QWEN), N.NFC(), [raw("<|im_end|>", special=True), raw("<tool_call>")]),
    "o200k": byte_level(split_by(O200K)),
    "deepseek": byte_level(split_by(*DEEPSEEK)),
    "phi": byte_level(split_by(GPT4), added=[raw("<|im_end|>", rstrip=True, special=True)]),
    "byte-normalizer": byte_level(P.Split(Regex(r"\s"), "merged_with_next"), N.ByteLevel()),
    "llama2": sentencepiece_bpe(None, LLAMA2, [AddedToken("café", normalized=True, single_word=True)]),
    "mistral": sentencepiece_bpe(P.Metaspace(prepend_scheme="first", split=False), None),
    "gemma": sentencepiece_bpe(P.Split(" ", "merged_with_previous"), N.Replace(" ", "▁"), [raw("\n" * count) for count in (2, 3, 4)]),
    "t5": unigram(P.Sequence([P.WhitespaceSplit(), P.Metaspace()]), N.Sequence([N.Nmt(), N.NFKC(), N.Replace(Regex(" {2,}"), " ")])),
    "unigram-whole": unigram(P.Metaspace(prepend_scheme="first", split=False), N.NFKC()),
    "xlm-roberta": sentencepiece_unigram(),
    "bert-uncased": word_piece(N.BertNormalizer()),
    "bert-cased": word_piece(N.BertNormalizer(lowercase=False)),
    "bert-strip": word_piece(N.Sequence([N.NFD(), N.Lowercase(), N.StripAccents(), N.Strip()])),
    "word-level": word_level(P.Whitespace(), [AddedToken("the", single_word=True), AddedToken("<mask>", lstrip=True, rstrip=True)]),
    "char-delimiter": word_level(P.CharDelimiterSplit(" ")),
    "subword-prefix": bpe(P.Whitespace(), trainer={"continuing_subword_prefix": "##"}, continuing_subword_prefix="##"),
    "subword-suffix": bpe(P.BertPreTokenizer(), N.Lowercase(), trainer={"end_of_word_suffix": "</w>"}, end_of_word_suffix="</w>"),
    "punctuation-digits": bpe(P.Sequence([P.Punctuation("contiguous"), P.Digits(individual_digits=True)])),
    **{f"split-{name}": bpe(P.Split(", ", name)) for name in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous")},
    **{f"split-invert-{name}": bpe(P.Split(Regex(r"\w+"), name, invert=True)) for name in ("removed", "merged_with_previous", "merged_with_next")},
}

os.makedirs(OUT, exist_ok=True)
for name, tokenizer in FAMILIES.items():
    ids = {text: tokenizer.encode(TEXTS[text], add_special_tokens=False).ids for text in TEXTS}
    decoded = {text: tokenizer.decode(ids[text]) for text in TEXTS if ids[text]}
    with open(os.path.join(OUT, f"{name}.json"), "w") as file:
        json.dump({"tokenizer": json.loads(tokenizer.to_str()), "ids": ids, "decoded": decoded}, file, ensure_ascii=True, separators=(",", ":"))
        file.write("\n")
with open(os.path.join(OUT, "texts.json"), "w") as file:
    json.dump(TEXTS, file, ensure_ascii=True, indent=1)
    file.write("\n")

# Makes the fixtures of test/system/test_tokenizer_files.cpp with Hugging Face's `tokenizers`, the reference:
#   small.json      a byte-level BPE tokenizer of 700 entries, trained and written by `tokenizers`
#   small_ids.json  [{"text", "ids"}] encoded with it, <|endoftext|> recognised
#   gpt2_ids.json   the same texts with GPT-2's vocabulary, <|endoftext|> as ordinary text
# Run (made with tokenizers 0.23.3, tiktoken 0.14.0, Python 3.11):
#   pip install tokenizers tiktoken
#   python3 make_tokenizer_fixtures.py ENGLISH.txt encoder.json vocab.bpe
# ENGLISH.txt: the King James text (`bible Gen1:1-Rev22:21`), public domain. GPT-2's ids are checked against tiktoken too.
import json, os, random, sys, unicodedata

import tiktoken
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

EOT = "<|endoftext|>"
here = os.path.dirname(os.path.abspath(__file__))
english = open(sys.argv[1], encoding="utf-8").read()


def byte_level(tokenizer):
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel()
    return tokenizer


def texts():
    yield from [
        "", " ", "  ", "\n", "a", " a", "Hello world", "Hello, world!  How are you?\n\nFine.", "   leading and trailing   ",
        "I'm, you're, he'll, we've, they'd, isn't, it's 'S 'T 'Re don''t 's't 're", "x'" , "'", "' s", "it’s curly",
        "tabs\tand\t\tmore\r\nwindows\r\n\r\nlines\x0b\x0c", "1234567890 3.14159e-10 ½ ² Ⅷ ٣٤٥ 12abc34", "a1b2 c3 _x_ __init__ a-b",
        "def f(x):\n    return x ** 2  # square\n\n\nif __name__ == '__main__':\n\tprint(f(3))\n",
        "<|endoftext|>", "one<|endoftext|>two <|endoftext|><|endoftext|>\n<|endoftext", "<|endoftext |>",
        "\x00\x01\x02\x1c\x1f\x7f\x80\x85\x9f",
        "no-break\u00a0space\u00a0\u00a0x \u2003em\u3000ideographic\u2028line\u2029par\u180emongolian\u200bzero\u200djoin\ufeffbom",
        "Ça va? Où êtes-vous? œuvre Straße ÆØÅ İstanbul ǅ", "e\u0301 decomposed é; n\u0303 ñ", "Привет, мир! Как дела? Ёлка",
        "Γειά σου Κόσμε, ἄνθρωπος", "שָׁלוֹם עולם", "مرحبا بالعالم، كيف حالك؟", "नमस्ते दुनिया, आप कैसे हैं?", "สวัสดีชาวโลก",
        "你好，世界。今天天气很好！",
        "こんにちは世界。カタカナとひらがな", "안녕하세요 세계", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛 𐍈 𠀀𠀁", "😀 😃😄 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ❤️ ☃", "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α∧¬β → √2 ≠ 3/2",
        "$100 €50 £20 ¥5 100% #tag @user a&b", "http://example.com/a?b=c&d=e#f user@example.org", "\ufffd\ufffe\uffff\U0010ffff",
        "a" * 300, " " * 100 + "x" + " " * 65, "\n" * 70, "=" * 200, "ab" * 90,
        "\n \n  \n   x \t \n", "a  b   c    d", "?!?!?!...---", "naïve café",
        english[:1500], english[2000000:2001500],
    ]
    rng = random.Random(1)
    assigned = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cs", "Cn", "Co")]   # Unicode 14 in Python 3.11
    for i in range(40):   # any assigned character; the shorter the pool, the more spaces and quotes meet letters
        pool = [assigned, assigned[:600], list("abC1 2'st \n\t!é "), list(" \u00a0\n\u3000a1!'s")][i % 4]
        yield "".join(rng.choice(pool) for _ in range(rng.randint(1, 120)))


def write(name, tokenizer, check=None):
    out = []
    for text in texts():
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text, repr(text)
        assert check is None or check(text) == ids, repr(text)
        out.append(json.dumps({"text": text, "ids": ids}, separators=(",", ":")))
    with open(os.path.join(here, name), "w") as f:
        f.write("[\n" + ",\n".join(out) + "\n]\n")


small = byte_level(Tokenizer(models.BPE()))
trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=[EOT],
                              initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
small.train_from_iterator([english[:500000]] + [t for t in texts() if EOT not in t], trainer)
small.save(os.path.join(here, "small.json"))
write("small_ids.json", small)

if len(sys.argv) > 2:
    vocab = json.load(open(sys.argv[2]))
    merges = [tuple(line.split()) for line in open(sys.argv[3], encoding="utf-8").read().split("\n")[1:] if line]
    gpt2 = byte_level(Tokenizer(models.BPE(vocab=vocab, merges=merges)))
    printing = [*range(33, 127), *range(161, 173), *range(174, 256)]   # bytes_to_unicode of GPT-2's encoder.py
    others = [b for b in range(256) if b not in printing]
    bytes_of = {chr(b): bytes([b]) for b in printing} | {chr(256 + i): bytes([b]) for i, b in enumerate(others)}
    ranks = {b"".join(bytes_of[c] for c in token): i for token, i in vocab.items() if token != EOT}
    second = tiktoken.Encoding("gpt2", pat_str=r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""",
                               mergeable_ranks=ranks, special_tokens={EOT: vocab[EOT]})
    write("gpt2_ids.json", gpt2, check=second.encode_ordinary)

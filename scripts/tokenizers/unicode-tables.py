"""Writes packages/core/src/tokenizer/unicode-tables.ts: what the Python library `tokenizers` (0.23.3) takes for punctuation, marks and
control characters, by older versions of Unicode than JavaScript's. Run: python unicode-tables.py > unicode-tables.ts"""
from tokenizers import normalizers as N, pre_tokenizers as P

CHARACTERS = [chr(code) for code in range(1, 0x110000) if not 0xD800 <= code <= 0xDFFF]


def ranges(chosen):
    out = []
    for character in CHARACTERS:
        if chosen(character):
            code = ord(character)
            if out and out[-1][1] == code - 1:
                out[-1][1] = code
            else:
                out.append([code, code])
    return "".join(f"\\u{{{a:x}}}" if a == b else f"\\u{{{a:x}}}-\\u{{{b:x}}}" for a, b in out)


def bert(**options):
    defaults = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    return N.BertNormalizer(**{**defaults, **options})


punctuation, clean, accents, marks = P.Punctuation(), bert(clean_text=True), bert(strip_accents=True), N.StripAccents()

TABLES = {
    "PUNCTUATION": ("what `Punctuation` and `BertPreTokenizer` split at", lambda c: len(punctuation.pre_tokenize_str(f"1{c}1")) > 1),
    "NONSPACING_MARK": ("what `BertNormalizer` removes as an accent", lambda c: accents.normalize_str(c) == ""),
    "COMBINING_MARK": ("what `StripAccents` removes", lambda c: marks.normalize_str(c) == ""),
    "CONTROL": ("what `BertNormalizer` removes when it cleans, with U+0000", lambda c: clean.normalize_str(c) == ""),
}
print("// Made by scripts/tokenizers/unicode-tables.py; the ranges are parts of a class of JavaScript's `v` mode.")
for name, (text, chosen) in TABLES.items():
    found = ranges(chosen)
    if name == "CONTROL":
        found = "\\u{0}" + found
    print(f"\n/** {text[0].upper()}{text[1:]}. */\nexport const {name} =")
    lines, line = [], ""
    for part in found.replace("\\", "\n\\").split("\n")[1:]:
        if len(line) + len(part) > 110 and not line.endswith("-"):
            lines.append(line)
            line = ""
        line += part
    lines.append(line)
    print(" +\n".join('  "' + line.replace("\\", "\\\\") + '"' for line in lines) + ";")

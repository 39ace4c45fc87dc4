"""Texts on which tokenizers that are almost right differ: code, tables, scripts, digits, spaces, special tokens."""

from __future__ import annotations

from random import Random

PIECES = (
    *(
        "  2024",
        "12345678",
        "3.14159",
        "1,000,000",
        "٣٤٥",
        "५६",
        "²³¹",
        "½ cup",
        "Ⅻ",
        "①②",
        "１２３",
        "0x1F",
        "1e-05",
    ),
    *(
        "It's",
        "IT'S",
        "they'LL",
        "we'Ve",
        "I'm",
        "o'clock",
        "'tis",
        "dogs'",
        "'d",
        "'re'",
        "l'été",
        "'",
        "''",
    ),
    *(
        " ",
        "  ",
        "   ",
        "\t",
        "\t\t",
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        " \n",
        "\n ",
        "\n\n  \n",
        "\u00a0",
        "\u3000",
        "\u2028",
    ),
    *(
        "def f(x):\n    return x[1:-1] ** 2  # why?\n",
        "for (int i=0;i<n;++i){a[i]|=b;}",
        "<div class='a'>&nbsp;</div>",
    ),
    *(
        "| a | b |\n|---|---|\n",
        "a,b;c\t1",
        "$\\frac{1}{2}$",
        "https://x.org/?q=1&r=2#s",
        "~/.bashrc",
        "C:\\Users\\x",
    ),
    *(
        "naïve café",
        "Ωμέγα",
        "Привет, мир!",
        "你好，世界。",
        "こんにちは",
        "한국어",
        "שלום",
        "مرحبا بكم",
        "नमस्ते",
        "ไทย",
        "ǅ",
        "ﬁ",
    ),
    *(
        "😀",
        "👩‍👩‍👧‍👦",
        "🇩🇪",
        "❤️",
        "\u200b",
        "\u200d",
        "\ufeff",
        "\u0301",
        "e\u0301",
        "ẛ̣",
        "\U0001d54f",
        "\ue000",
        "…—–“”‘’",
    ),
    *(
        "<|endoftext|>",
        "<|im_start|>user\n",
        "<|im_end|>",
        "<|im_end",
        "<tool>",
        "[PAD1]",
        "|>",
        "<|",
        "</s>",
    ),
    *(
        "Hello",
        " world",
        "the",
        " The",
        "THE",
        "_x__",
        "camelCaseWord",
        "snake_case",
        "x" * 40,
        "!?",
        "...",
        "####",
        "=>",
        "\x00",
        "\x1b[",
    ),
)
"""Each is put beside every other sooner or later."""
_RANGES = (
    (0x20, 0x7F),
    (0xA0, 0x250),
    (0x300, 0x530),
    (0x590, 0x700),
    (0x900, 0xE80),
    (0x2000, 0x2C00),
    (0x3000, 0x9FFF),
)


def hard_texts(count: int, seed: int = 0) -> list[str]:
    """Return every piece, then random joins of pieces and random characters: ``count`` texts in all."""
    random = Random(seed)
    texts = list(PIECES)
    while len(texts) < count:
        parts = [random.choice(PIECES) for _ in range(random.randrange(2, 14))]
        if random.random() < 0.3:
            parts.insert(random.randrange(len(parts)), _random_characters(random))
        texts.append(random.choice(("", "", " ")).join(parts))
    return texts[:count]


def _random_characters(random: Random) -> str:
    ranges = [random.choice(_RANGES) for _ in range(random.randrange(1, 12))]
    return "".join(chr(random.randrange(*bounds)) for bounds in ranges)

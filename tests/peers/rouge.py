#!/usr/bin/env python3
"""Random pairs of texts with the score that Google's rouge-score gives them: `rouge.py COUNT SEED > pairs.json`.

Needs `pip install rouge-score`. Words are made of the stems and endings that the stemmer has rules for, its irregular forms, letters at
random, digits, capitals and letters outside of ASCII. Compare: `TAILSPAN_ROUGE_PAIRS=pairs.json cargo test -p tailspan-core --test rouge`.
"""

import json
import random
import sys

from rouge_score import rouge_scorer

STEMS = """relat condit valenc hesit digit conform radic differ vile analog vietnam predic oper feudal decis hope callous formal sensit triplic
form electr good reviv allow infer airlin gyroscop adjust defens irrit replac depend adopt homolog commun activ angular effect bowdler prob rat ceas
control roll happ sk fl tr enjo pon cares ti cat agre plaster bl motor sing conflat troubl siz hopp tann fall hiss fizz fail fil ge the archae
phil spi di""".split()
ENDS = """s es ies sses ed ied eed ing y ly ational tional enci anci izer bli abli alli entli eli ousli ization ation ator alism iveness
fulness ousness aliti iviti biliti fulli logi ology icate ative alize iciti ical ful ness al ance ence er ic able ible ant ement ment ent ion tion sion
ou ism ate iti ous ive ize e ll lle yy""".split() + [""]
OTHERS = """sky skies dying lying tying news innings inning outings outing cannings canning howe proceed exceed succeed naïve İstanbul 21°C
café can't 1st 2nd a1ed yyy y YES \u212a straße 日本 über-cool""".split()


def word() -> str:
    kind = random.random()
    if kind < 0.15:
        return random.choice(OTHERS)
    if kind < 0.3:
        return "".join(random.choice("abcdeiouylsztxw") for _ in range(random.randint(1, 10)))
    made = random.choice(STEMS) + random.choice(ENDS)
    return made.upper() if random.random() < 0.1 else made


def pair() -> tuple[str, str]:
    words = [word() for _ in range(random.randint(0, 20))]
    text = random.choice([" ", ", ", "-", "\n"]).join(words)
    other = [random.choice(words) if words and random.random() < 0.5 else word() for _ in range(random.randint(0, 20))]
    return text, " ".join(other)


def main() -> None:
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    random.seed(seed)
    scorer = rouge_scorer.RougeScorer(["rouge1"], use_stemmer=True)
    pairs = []
    for _ in range(count):
        candidate, reference = pair()
        pairs.append([candidate, reference, scorer.score(reference, candidate)["rouge1"].fmeasure])
    json.dump(pairs, sys.stdout, ensure_ascii=False)


if __name__ == "__main__":
    main()

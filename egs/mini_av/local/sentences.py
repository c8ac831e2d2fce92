"""Sentences of the generated corpus: a closed grammar, or an open vocabulary."""

from collections.abc import Callable

import numpy as np

# After the GRID corpus (Cooke et al., 2006): six slots, one word each; 55 words, 501,760 sentences.
GRID = (
    ("place", "set", "lay", "bin", "move", "show", "find", "keep"),
    ("blue", "green", "red", "white", "black", "yellow", "pink", "brown"),
    ("at", "by", "in", "with", "under", "over", "from"),
    (
        ("apple", "book", "chair", "door", "fish", "garden", "house")
        + ("lamp", "mirror", "paper", "river", "shoe", "table", "window")
    ),
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("again", "now", "please", "soon", "today", "later", "first", "away"),
)

# The open mode: regular words, inflected below, fill templates of 6 to 12 words.
NOUNS = """
actor album anchor animal answer apron arrow artist attic aunt autumn badge bag baker ball balloon
band banker barn barrel basket bath battle beach bean bear bed bell belt bird biscuit blanket boat
body bone book boot border bottle bowl boy brain branch bread brick bridge broom brother bucket
builder bullet butter button cabin cable cake camel camera candle captain card carpet carrot
castle cat cave ceiling chain chair chapter cheek cherry chest chicken church cinema circle clock
cloud clown coach coat coffee collar colour comb cook copper corner cottage cotton cousin cow crab
cradle cream cricket crop crown cup curtain cushion dancer daughter dawn dealer desert desk
diamond dinner doctor dog doll dollar door dragon drawer dream driver drum duck eagle ear editor
egg elbow engine farmer feather field finger fire flag flame floor flower forest fork fountain fox
friend frog fruit game garage garden gate ghost giant girl glove goat grape guard guest guitar
hammer hand hat heart heel hill hotel hour house hunter insect iron island jacket jar jewel judge
jug kettle king kitchen kitten lake lamp land lawyer leader lemon lesson letter lion lizard lock
lunch machine magnet maid market mask meadow mirror monkey month moon morning mountain mouth nail
napkin neck needle nephew nest night number nurse oak ocean office onion orange orchard oven owl
owner page painter palace pan paper parcel parent parrot path pear pencil pepper piano picture
pillow pilot pirate planet plant plate pocket poem poet pond pony potter prince printer pupil
puppet queen rabbit radio rain ring river road robot rock roof room rope rose sailor school seat
shadow ship shirt shop shoulder singer sister skirt sky soldier song sound spider spoon spring
stamp star station stone storm story stranger stream street student summer sweater table tailor
teacher temple tiger tooth tower town train tree tunnel turtle uncle valley vase village violin
voice wagon waiter wall wheel wind window winter writer yard
""".split()
VERBS = """
accept add admire answer attack avoid bake blame boil borrow burn call carry check clean climb
close collect colour cook copy count cover crush deliver destroy discover dress drop enjoy enter
examine explain fasten fetch fill finish fix follow gather greet guard guess hammer hand help hunt
ignore imagine improve inspect invent join kick kiss knock laugh lift like listen load lock look
love mark measure melt mend mention miss mix move need notice offer open order own paint park pass
pick polish pour praise prepare print protect pull punish push reach remember remove rent repair
repeat rescue return roast rub save search serve shake share show smell sort start steer stir
stretch surprise taste tease thank touch trust turn visit wait walk want warm wash watch water
whisper wipe wonder work wrap
""".split()
DOUBLED = ("drop", "rub", "stir", "wrap")
IRREGULAR = {"shake": "shook", "show": "showed"}
ADJECTIVES = """
absent active alert ancient angry awkward bad bitter bold brave brief bright broad calm careful
careless cautious charming cheap cheerful clever clumsy cold cool cosmic correct costly cruel
curious damp dangerous dark dear deep delicate dense dim distant dreadful dull eager elegant
endless exact faint fair faithful famous fancy fatal fierce final firm foolish formal frequent
fresh generous gentle glad golden graceful grand grateful great harsh helpful hidden hollow honest
huge humble icy idle innocent jealous joyful kind late lazy light lonely loose loud loyal lucky
mean mild modern modest narrow neat nervous nice noble noisy odd patient perfect plain pleasant
polite poor popular precious proud pure quick quiet rapid rare rich rough rude sad secret sharp
shy silent silver simple sincere slim slow smart smooth sober soft solid solemn stern strange
strict strong sudden sweet swift tall tender tense thick thin tidy timid tiny tired tough tragic
ugly useful vague vast vivid warm weak wicked wide wild wise wooden worthy young
""".split()
NAMES = """
adam alice amy andrew anna arthur barbara ben carol charles clara daniel david diana edward ella
emma eric eva fiona frank george grace hannah harry helen henry ivan jack jane john julia karen
kevin laura leo linda lucy mark martin mary max megan michael nancy nora oliver oscar paul peter
rachel rebecca richard robert rosa ruth samuel sarah simon sophie steven susan thomas victor
walter william
""".split()
PLACES = """
africa athens berlin boston brazil canada chicago china dublin egypt england france geneva greece
holland india ireland italy japan kenya lisbon london madrid mexico moscow norway oxford paris
peru poland rome russia scotland spain sweden texas tokyo turkey venice vienna wales warsaw
""".split()
PREPOSITIONS = "above across against along around behind beneath beside near outside past".split()
TIMES = """
yesterday tonight tomorrow monday tuesday wednesday thursday friday saturday sunday january
february april june july august september october november december
""".split()
NUMBERS = "three four five six seven eight nine ten eleven twelve twenty thirty forty fifty".split()


def plural(noun: str) -> str:
    """Regular plural, and that of tooth."""
    if noun == "tooth":
        return "teeth"
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeou":
        return noun[:-1] + "ies"
    return noun + "s"


def past(verb: str) -> str:
    """Past tense."""
    if verb in IRREGULAR:
        return IRREGULAR[verb]
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeou":
        return verb[:-1] + "ied"
    if verb in DOUBLED:
        return verb + verb[-1] + "ed"
    return verb + "ed"


def participle(verb: str) -> str:
    """Present participle."""
    if verb in DOUBLED:
        return verb + verb[-1] + "ing"
    return (verb[:-1] if verb.endswith("e") else verb) + "ing"


def adverb(adjective: str) -> str:
    """The adverb in -ly."""
    if adjective.endswith("le") and adjective[-3] not in "aeiou":
        return adjective[:-1] + "y"
    if adjective.endswith("y") and adjective != "shy":
        return adjective[:-1] + "ily"
    return adjective + ("ally" if adjective.endswith("ic") else "ly")


FORMS: dict[str, tuple[list[str], Callable[[str], str]]] = {
    "noun": (NOUNS, str),
    "nouns": (NOUNS, plural),
    "verb": (VERBS, str),
    "verbed": (VERBS, past),
    "verbing": (VERBS, participle),
    "adjective": (ADJECTIVES, str),
    "adverb": (ADJECTIVES, adverb),
    "name": (NAMES, str),
    "place": (PLACES, str),
    "near": (PREPOSITIONS, str),
    "time": (TIMES, str),
    "number": (NUMBERS, str),
}
TEMPLATES = tuple(
    template.split()
    for template in (
        "the ADJECTIVE NOUN VERBED the NOUN",
        "NAME ADVERB VERBED the NOUN NEAR the ADJECTIVE NOUN",
        "NUMBER ADJECTIVE NOUNS VERBED the NOUN in PLACE",
        "they were VERBING the ADJECTIVE NOUNS NEAR the NOUN TIME",
        "did NAME VERB the NOUN when we VERBED those NOUNS",
        "we will VERB NUMBER NOUNS and a ADJECTIVE NOUN TIME",
        "NAME and NAME are VERBING the NOUN in PLACE",
        "she could not VERB the ADJECTIVE NOUN because the NOUN was ADJECTIVE",
        "please VERB the NOUNS ADVERB before you VERB the NOUN",
        "the NOUN from PLACE was ADJECTIVE but the NOUNS VERBED it ADVERB",
    )
)
MODES = ("grid", "open")


def grid_sentence(rng: np.random.Generator) -> str:
    """A sentence of the closed grammar."""
    return " ".join(str(rng.choice(words)) for words in GRID)


def open_sentence(rng: np.random.Generator) -> str:
    """A sentence of the open vocabulary."""
    words = []
    for word in TEMPLATES[rng.integers(len(TEMPLATES))]:
        if word.isupper():
            stems, inflect = FORMS[word.lower()]
            word = inflect(stems[rng.integers(len(stems))])
            if words and words[-1] == "a" and word[0] in "aeiou":
                words[-1] = "an"
        words.append(word)
    return " ".join(words)


def open_vocabulary() -> set[str]:
    """Every word that the open mode can say."""
    words = {word for template in TEMPLATES for word in template if word.islower()} | {"an"}
    return words | {inflect(stem) for stems, inflect in FORMS.values() for stem in stems}


def distinct_sentences(count: int, rng: np.random.Generator, mode: str = "grid") -> list[str]:
    """Draw that many different sentences.

    Raises:
        ValueError: for an unknown mode, or if the grammar has fewer.
    """
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} must be one of {', '.join(MODES)}")
    total = int(np.prod([len(words) for words in GRID]))
    if mode == "grid" and count > total:
        raise ValueError(f"{count} sentences asked for, the grammar has {total}")
    draw = grid_sentence if mode == "grid" else open_sentence
    sentences: dict[str, None] = {}
    while len(sentences) < count:
        sentences[draw(rng)] = None
    return list(sentences)

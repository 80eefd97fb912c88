"""Text that no picture shows: small talk by the thousand, and a few paragraphs in other tongues."""

import random
from collections.abc import Mapping

from mmc4_builder.sample.words import NOUNS, with_article

WHO = (
    "My neighbour", "The baker", "Our teacher", "An old friend", "The librarian", "My grandmother",
    "The editor", "A young doctor", "The committee", "Our guide", "The mayor", "A retired engineer",
    "My cousin", "The reader", "Nobody in the family", "The museum", "A local historian", "The reporter",
    "His daughter", "Her uncle",
)  # fmt: skip
DID = (
    "read the whole letter twice", "wrote a long reply", "forgot the name of the street",
    "asked for a second opinion", "kept the recipe secret", "prepared soup for everybody",
    "learned three new languages", "lost the argument", "sent a postcard to the office",
    "explained the rules slowly", "paid the bill without a word", "told the same joke",
    "changed the plan completely", "thought about the question", "counted the visitors",
    "answered the telephone", "cooked potatoes with garlic", "published a short essay",
    "organised the meeting", "mended the kitchen chair", "remembered an earlier summer",
    "wanted to study music", "studied the map in silence", "laughed about the mistake",
    "discovered a better method", "signed the agreement", "voted against the proposal",
    "praised the translation", "missed the first lecture", "repeated the experiment",
)  # fmt: skip
MOMENT = (
    "before breakfast", "last autumn", "on the second day", "without any hurry", "for the third time",
    "during the war", "after the concert", "in the spring of that year", "with great patience", "as usual",
    "to general surprise", "while the coffee was brewing", "a week later", "at the end of the month",
    "for no good reason", "many years ago",
)  # fmt: skip
TOPIC = (
    "A good dictionary", "Fresh bread", "The history of the valley", "Patience", "The price of paper",
    "Honest criticism", "The local dialect", "A simple budget", "Traditional cooking", "The new schedule",
    "Mathematics", "A quiet evening", "The school library", "Careful planning", "Folk music",
    "The first chapter", "Regular exercise", "A warm meal",
)  # fmt: skip
IS = (
    "is worth more than most people expect", "takes years to understand",
    "was never a popular subject here", "has changed a great deal since then",
    "deserves a longer discussion", "brings the whole street together", "cannot be learned from a manual",
    "surprised even the experts", "is easier to praise than to explain", "will matter more in the future",
    "used to be taken for granted", "still divides the members of our club", "saves both time and money",
    "remains difficult to measure",
)  # fmt: skip
BECAUSE = (
    "because everybody was tired", "although the results were mixed",
    "and the discussion went on for hours", "if we can trust the records", "which pleased the organisers",
    "as the minutes of the meeting show", "but few people noticed it", "and that is how it began",
    "so we decided to stay", "whatever the critics may say",
)  # fmt: skip
ABSENT = (
    "Nobody here had ever owned {thing}.",
    "For years I dreamed of buying {thing} of my own.",
    "The word for {thing} is the same in both languages.",
    "There was no money left for {thing} that year.",
    "He once wrote a poem about {thing} he had lost.",
)

FOREIGN: Mapping[str, tuple[str, ...]] = {
    "de": (
        "Am Morgen gingen wir langsam durch die Altstadt und sprachen über das Wetter.",
        "Der Bäcker erzählte uns, dass sein Großvater das Geschäft gegründet hatte.",
        "Später fanden wir ein kleines Café, in dem es noch frischen Kuchen gab.",
        "Niemand wusste, wann der nächste Zug abfahren würde, aber das störte uns nicht.",
        "Abends saßen wir lange am Ufer und schrieben Briefe an unsere Freunde.",
    ),
    "fr": (
        "Le matin, nous avons marché lentement dans la vieille ville en parlant du temps.",
        "Le boulanger nous a raconté que son grand-père avait fondé la maison.",
        "Plus tard, nous avons trouvé un petit café où il restait encore des gâteaux.",
        "Personne ne savait quand le prochain train partirait, mais cela ne nous gênait pas.",
        "Le soir, nous sommes restés longtemps au bord de la rivière avec nos amis.",
    ),
    "es": (
        "Por la mañana caminamos despacio por el casco antiguo hablando del tiempo.",
        "El panadero nos contó que su abuelo había fundado el negocio hace muchos años.",
        "Más tarde encontramos una pequeña cafetería donde todavía quedaban pasteles.",
        "Nadie sabía cuándo saldría el próximo tren, pero eso no nos molestaba.",
        "Por la noche nos quedamos mucho tiempo junto al río con nuestros amigos.",
    ),
    "ja": (
        "朝、私たちは古い町をゆっくり歩きながら天気について話しました.",
        "パン屋の主人は、祖父がこの店を始めたのだと教えてくれました.",
        "その後、まだ焼きたての菓子が残っている小さな喫茶店を見つけました.",
        "次の列車がいつ出るのか誰も知りませんでしたが、気になりませんでした.",
        "夜は川のそばに長いあいだ座って、友人たちに手紙を書きました.",
    ),
}


def small_talk(rng: random.Random) -> str:
    """One sentence that no picture of the sample shows."""
    form = rng.randrange(5)
    if form == 0:
        return f"{rng.choice(WHO)} {rng.choice(DID)} {rng.choice(MOMENT)}."
    if form == 1:
        return f"{rng.choice(TOPIC)} {rng.choice(IS)}, {rng.choice(BECAUSE)}."
    if form == 2:
        return f"{rng.choice(WHO)} {rng.choice(DID)} {rng.choice(BECAUSE)}."
    if form == 3:
        return f"{rng.choice(MOMENT).capitalize()}, {_lower(rng.choice(WHO))} {rng.choice(DID)}."
    return f"{rng.choice(TOPIC)} {rng.choice(IS)} {rng.choice(MOMENT)}."


def mention(kind: str, rng: random.Random) -> str:
    """A sentence that names a kind of thing without showing one: the trap for word matching."""
    return rng.choice(ABSENT).format(thing=with_article(NOUNS[kind][0]))


def _lower(words: str) -> str:
    return words[0].lower() + words[1:]


def accented(rng: random.Random) -> str:
    """Small talk whose letters and quotation marks a wrong charset would spoil."""
    drink = rng.choice(("café crème", "crème brûlée", "rosé", "jalapeño soup", "smörgåsbord"))
    said = rng.choice(("a naïve façade", "the señor’s résumé", "a déjà vu", "our entrée", "the fiancée’s cliché"))
    return f"{rng.choice(WHO)} called it “{said}” and ordered the {drink} {rng.choice(MOMENT)}."

"""What the tokens of questions are called; which of them say nothing, and which contrast with others."""

UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
TEENS = "seventeen eighteen nineteen"
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
SMALL = f"{UNITS} {TEENS}".split()
COMPOUNDS = {
    f"{ten}{between}{unit}": str(10 * tens + units)
    for tens, ten in enumerate(TENS.split(), start=2)
    for units, unit in enumerate(SMALL[1:10], start=1)
    for between in ("-", " ")
}
"""Numbers of two words."""

_SAME = r"""
<= \leq \le \leqslant
>= \geq \ge \geqslant
!= \neq \ne
< \lt
> \gt
/ \div \over
| \mid \vert \lvert \rvert
= equals
+ plus
- minus
% percent percentage pct
binom \dbinom \tbinom \choose
phi \varphi
epsilon \varepsilon
to \rightarrow \longrightarrow
degree degrees deg
2 twice double doubled doubles
3 thrice triple tripled triples
12 dozen
100 hundred
least smallest minimum minimal lowest min
greatest largest maximum maximal highest max
meter metre
meters metres
centimeter centimetre
centimeters centimetres
kilometer kilometre
kilometers kilometres
liter litre
liters litres
color colour
colors colours
colored coloured
neighbor neighbour
neighbors neighbours
center centre
centered centred
labeled labelled
traveled travelled
traveling travelling
favorite favourite
gray grey
"""
"""On each line, a token's name, and what else it may be called."""

NAMES = {
    **{word: str(number) for number, word in enumerate(SMALL)},
    **{word: str(number) for number, word in zip(range(20, 100, 10), TENS.split(), strict=True)},
    **{other: name for name, *others in map(str.split, _SAME.strip().splitlines()) for other in others},
}

CONTRASTS = frozenset(
    word
    for words in (
        "half third quarter fourth fifth sixth seventh eighth ninth tenth first last",
        "monday tuesday wednesday thursday friday saturday sunday",
        "january february march april may june july august september october november december",
        "least greatest even odd prime composite rational irrational convex concave ascending descending",
        "north south east west sum difference product quotient increase decrease increased decreased maximize minimize",
        "sin cos tan cot sec csc sine cosine tangent lfloor lceil gcd lcm multiple divisor factor divisors factors",
        "area perimeter circumference volume radius diameter width length height weight mean median mode range domain",
        "numerator denominator union intersection arithmetic geometric",
    )
    for word in words.split()
)
"""Words of which another one in the same place asks something else."""

NOTHING = frozenset(
    token
    for tokens in (
        r"\cdot \times \ast times \ldots \dots \cdots \dotsc \dotsb \rfloor \rceil \langle \rangle \lbrace \rbrace ~ $",
        r"\displaystyle \textstyle \limits \text \mathrm \rm \mathbf \textbf \textit \mathit \mbox \operatorname",
        r"\mathsf \emph \bf \it \underline \boldsymbol \mathbb \mathcal \hspace \vspace \noindent \par \textrm",
        r"\centering \quad \phantom \usd usd dollar dollars",
        "s a an the compute calculate evaluate find determine what is are value simplify reduce please",
    )
    for token in tokens.split()
)
"""Tokens that say nothing: they only set type, name a currency, or ask as any other question asks."""

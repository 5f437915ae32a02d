r"""Questions that refer to what is not in them: a picture, a table, another question, a page of the web.

A word such as "the graph" alone says little: it can be that of the function given. So each group of patterns has its
own signs that the text holds what is meant: a picture as code, a table, a list of numbers, the word's introduction
("a figure with 5 corners", "the graph of y = x^2"), what is shaded.
"""

import polars as pl

from ernie_pipeline.data.filter.questions import LOWER
from ernie_pipeline.data.filter.reasons import KEEPS, found
from ernie_pipeline.data.normalize.masked import Step, apply_where
from ernie_pipeline.recipe.sections import Filters


def _any(*patterns: str) -> str:
    return f"({'|'.join(patterns)})"


_PICTURE = r"(?:figure|diagram|picture|image|drawing|illustration|photo(?:graph)?|sketch)s?"
_PLOT = (
    r"(?:(?:bar|line|pie|circle|box|scatter|dot|stem|frequency|velocity|speed|distance|position)[ -]?(?:and[ -][a-z0-9]+ )?"
    r"(?:graph|chart|plot|diagram)s?|pictograph|histogram|scatter ?plot|spinner|number line|venn diagram|scale drawing)"
)
# these are also things that problems are about: a graph's edges, a map from A to B, the graph below the x-axis
_CHART = rf"(?:(?:graph|table|chart|map|plot|grid|schedule|spreadsheet)s?|{_PLOT})"
_SHAPE = (
    r"(?:grid|solid|polygon|shape|triangle|square|circle|rectangle|quadrilateral|trapezoid|trapezium|parallelogram"
    r"|rhombus|pentagon|hexagon|octagon|cube|prism|pyramid|cone|cylinder|sphere|semicircle|sector|angle|line|net|spinner"
    r"|clock|ruler|maze|map|pattern|arrangement|array|path|track|polyhedron|tiling|board|circuit|tree|calendar|menu|sign"
    r"|scale|thermometer|rod|pool|garden|room|park|lot|field|roof|box|tile|card|block|dial|pie|kite|model|logo|flag|dot)s?"
)
_SHOWN = (
    r"(?:shown|pictured|depicted|illustrated|drawn|given|indicated|marked|labell?ed|represented|displayed|seen|graphed"
    r"|plotted|sketched|listed|presented|provided|summari[sz]ed|recorded)"
)
_SEEN = r"(?:shown|pictured|depicted|illustrated|graphed|displayed|sketched)"
_WHERE = r"(?:below|above|here|(?:at|on|to) (?:the |its )?(?:left|right)|right)"
_THE = (
    r"(?:the |this |these )(?:(?:given|above|attached|accompanying|adjoining|adjacent|following|provided|same|below) )?"
)
_END = r"(?:[.,;)?!]|\s*$|\n)"
_IS = r" (?:is|are|has|have|shows?|represents?|consists?|contains?|gives|lists|displays|summari[sz]es|records)\b"
_START = r"(?:^|[.?!,;:(]\s*|[.?!,;:]?\$,?\s+|\n\s*)"
_LOOK = (
    r"(?:see|refer(?:ring)? to|consult|use|using|look(?:ing)? at|observe|examine|study|read|from|according to|based on"
    r"|consider)"
)

_LINK = r"(https?://\S+|\bwww\.[a-z0-9]+\.[a-z0-9]+|!\[[^\]]*\]\([^)]*\)?|<ima?ge?\b|\\includegraphics\b|\[(?:img|image|attach[a-z0-9]*)\b)"
_HAS_LINK = r"https?:|www\.|!\[|<im|graphics|\[im|\[attach"

_PICTURES = _any(
    rf"\b{_SHOWN} (?:in|on|by|as in|like) {_THE}(?:[a-z0-9]+ )?{_PICTURE}\b",
    rf"\b{_LOOK} (?:{_THE})?{_PICTURE}(?: {_WHERE}| {_SHOWN}\b|{_END}| to\b)",
    rf"\b(?:attached|accompanying|adjoining) (?:[a-z0-9]+ )?(?:{_PICTURE}|{_CHART})\b",
    rf"\b(?:the|this|these|following|each) (?:[a-z0-9]+ )?{_PICTURE} (?:{_SHOWN} )?{_WHERE}\b",
    rf"\bthe (?:following|above|given) (?:[a-z0-9]+ )?{_PICTURE}\b",
    r"\bfig(?:ure|s)?\.? ?\(?(?:[1-79]|\d\.\d)|\b(?:in|see|from|of|on) (?:diagram|picture) ?\(?\d",
    r"\b(?:figure|diagram|drawing|sketch|picture) (?:is |has been )?not (?:drawn )?to scale\b|\(not (?:drawn )?to scale",
    rf"\bas {_SEEN}(?: (?:below|above|here|at|on|in)\b|[.,:;)?!]|\s*$)",
    rf"\b{_SEEN} {_WHERE}(?:[.,)?]|\s*$|{_IS})",
    rf"\b(?:the|this|each) {_SHAPE} (?:{_SHOWN} )?{_WHERE}(?:{_END}|{_IS}| (?:made|with)\b)",
    rf"\b(?:the|this) (?:[a-z0-9$-]+ ){{0,3}}{_SHAPE} {_SEEN}(?: here)?(?:{_END}|{_IS})",
    rf"\b(?:graph|figure|diagram|picture|image|chart|table|{_PLOT}) {_SEEN}(?: here)?(?:{_END}|{_IS})",
)
_HAS_PICTURE = (
    r"fig|diagram|picture|image|drawing|illustrat|photo|sketch|shown|depicted|displayed|graphed|attached|accompanying"
    r"|adjoining|to scale| below| above| here\b"
)

_IN_THE_PICTURE = _any(
    rf"{_START}(?:as )?(?:in|from|on) {_THE}(?:figure|diagram|drawing|sketch|picture|image)(?:,| {_SHOWN}| {_WHERE})",
    rf"{_START}(?:as )?in (?:the|this) (?:figure|diagram)\b",
)
_OWN_PICTURE = (
    rf"\b(?:an?|his|her|their|my|each|every|one|another|some|plane|solid|geometric|\d) (?:[a-z0-9-]+ ){{0,3}}{_PICTURE}\b"
    r"|\bscale of\b|\bscale 1"
)

# a definite article and no introduction
_THE_PICTURE = _any(
    rf"\b(?:in|of|on|from) (?:the|this) (?:figure|diagram|picture|image|drawing|sketch|illustration)(?:{_END}|:| (?:is|are) )",
    r"\b(?:the|this) (?:figure|diagram|picture|image|illustration) (?:shows|represents|illustrates|depicts|consists of)\b",
    r"\bnext (?:figure|shape|picture|diagram|image) in (?:the|this)\b",
)
_FORMED_PICTURE = (
    r"\bscale\b|\b(?:bounded|formed|enclosed|described|obtained|resulting|defined)\b|\bfigures\b|figure skat"
    r"|\b(?:draws?|drew|paint[a-z0-9]*|takes?|took|hangs?|hung) (?:[a-z0-9]+ )?(?:the )?(?:picture|photo|image)|digit|pixel|mirror"
)
_THE_GRAPH = _any(
    rf"{_START}(?:from|on|in) {_THE}graph,",
    rf"\b(?:{_LOOK}|in|of|on|for|with) {_THE}graph(?:{_END}| to\b|{_IS})",
    rf"\b(?:the|this) graph(?: of (?:the |a )?[a-z0-9]*\s?function)? (?:above |below )?(?:shows|represents|displays|to)\b",
    r"\b(?:use|using|from|based on) the graph of (?:the |a )?(?:function|line|parabola|curve|\$f\$|f)(?: to\b| above|[,.])",
)
_OWN_GRAPH = (
    r"\ban? (?:[a-z0-9-]+ )?graph\b|\bgraphs\b|\bvert(?:ex|ices)\b|\bedges?\b|\bgraph \$?[a-z]\$?\b|=|polynomial"
    r"|\bgraph (?:with|where|whose|in which)|passes through|\bgraph of (?:\$?[xy\\2-9]|\$[a-z0-9]*\s?\(?[xyt2-9\\])"
)

_SHADED = (
    r"\b((?:(?:un)?shaded|gr[ae]y|darkened|hatched|striped) (?:[a-z0-9]+ )?(?:region|area|part|portion|section|sector|triangle|square|rectangle|circle|figure|shape"
    r"|segment|quadrilateral|polygon|ring|annulus|parallelogram|trapezoid|hexagon|surface|fraction|zone|space|cell)s?\b"
    r"|(?:fraction|part|percent(?:age)?|portion|much|ratio|area) of (?:the|this) (?:[a-z0-9]+ ){0,3}(?:is|are) shaded\s*\?)"
)
_IS_SHADED = (
    r"\b(?:is|are|be|was|were|been|being|gets?|and|then|he|she|they|we|i|you) (?:then |also |all |now )?"
    r"(?:colou?red or )?(?:(?:un)?shade[sd]?|gr[ae]y|darkened|hatched|striped|colou?red)\b[^?\s]*[^?]"
    r"|\ban? shaded\b|\bshad(?:es|ing)\b|\bshade (?:the|in|all|one|two|each|every|exactly|some|any|\d)"
    r"|\b(?:has|have|having|with) (?:[a-z0-9]+ ){1,4}shaded\b"
    r"|\bshaded (?:[a-z0-9]+ )?(?:region|area|part|portion|section|ring)s?,? (?:[a-z0-9]+ ){0,3}?(?:bounded|enclosed|between|inside"
    r"|outside|within|formed|common|consist[a-z0-9]+|lies|lying|made|that (?:is|lies)|which (?:is|lies)|under|defined)\b"
)

_CHARTS = _any(
    rf"\b{_LOOK} {_THE}(?:chart|plot|{_PLOT}|data)(?: {_WHERE}| to\b| {_SHOWN}|{_END}|:)",
    rf"\b(?:see|refer(?:ring)? to|use|using|look at|read|according to|based on) {_THE}(?:[a-z0-9]+ )?table"
    rf"(?: {_WHERE}| to (?:find|answer|determine|estimate|compute|calculate|solve|help)| {_SHOWN}|{_END}|:)",
    rf"{_START}(?:from|in) {_THE}(?:table|chart|{_PLOT}), (?:find|determine|what|how|calculate|compute|estimate|we)\b",
    rf"\b(?:the|this) (?:[a-z0-9]+ )?{_CHART} (?:{_SHOWN} )?(?:below|above)(?:[.,:;)?]|$|{_IS})",
    rf"\b(?:the|this) (?:[a-z0-9]+ )?(?:table|chart|{_PLOT}) (?:above |below )?"
    r"(?:shows|displays|lists|summari[sz]es|records|represents|gives)\b",
    r"\bthe (?:[a-z]+ )?map shows\b",
    rf"\b(?:the|this) following (?:[a-z0-9]+ )?(?:table|chart|{_PLOT})s?\b",
    rf"\b{_SHOWN} (?:in|on|by) {_THE}(?:[a-z0-9]+ )?(?:table|chart|{_PLOT})\b",
    rf"\b(?:{_SHOWN} (?:in|on|by)) {_THE}graph{_END}",
    rf"\bgraphed (?:on|in) the\b",
    rf"\b(?:{_PICTURE}|{_PLOT}|table|chart|graph)(?: of [^.?]+?)? (?:is|are) {_SHOWN}(?: {_WHERE}|{_END})",
    rf"\bwhose graph is {_SHOWN}\b",
    rf"\b(?:is|are) (?:{_SEEN}|drawn|plotted|given)(?: {_WHERE}){_END}",
    rf"\b(?:is|are) {_SEEN}[.,;]",
    rf"\bin (?:the|this) (?:[a-z0-9]+ )?(?:chart|{_PLOT}){_END}",
    r"\b(?:in|see|from) table \d",
    rf"\b(?:shown|pictured|displayed) on {_THE}(?:grid|coordinate|axes|map|number line)\b",
    r"\bthe (?:[a-z]+ ){1,3}shown(?:[.,)?]|\s*$)",
    rf"{_START}(?:shown )?(?:below|above|here|(?:to|on|at) the (?:right|left)) (?:is|are) (?:an?|the|two|three|four|part)\b",
)
_TABLES = _any(
    r"\bcomplete the (?:[a-z]+ )?(?:table|chart|diagram|figure)\b",
    r"\b(?:given|use|using|from|consider) the (?:[a-z]+ )?table of\b",
    r"\b(?:data|values|information|numbers|entries|results) (?:in|from|of) the (?:[a-z]+ )?(?:table|chart|graph)\b",
)
_OWN_TABLE = r"\ban? (?:[a-z0-9$\\-]+ ){0,3}(?:table|chart|graph|diagram)\b|\d\$? ?(?:x|×|by|\\times) ?\$?\d|=|graph of"
_HAS_CHART = (
    r"table|chart|graph|plot|data|map|spinner|number line|venn|drawing|below|above|histogram|shown|pictured|depicted|displayed"
    r"|illustrated|\bhere |right |left "
)

_OTHERS = _any(
    r"\btnywr\b|\bthe number you (?:will )?receive\b",
    r"\blet \$?[a-z0-9]\$? (?:be|denote|equal) (?:the )?(?:(?:value|result) of )?(?:your |the )?answer (?:to|from|of|in) (?:the )?"
    r"(?:problem|question|part|previous|last|preceding)\b",
    r"\b(?:the|your) answers? (?:to|from|of|in|for) (?:(?:the )?(?:problem|question|part|exercise)s? "
    r"(?:\#?\d+|\(?[a-h]\)|[a-h]\b)|(?:the |your )?(?:previous|preceding|last|prior|above|earlier) )",
    r"\b(?:continu[a-z0-9]+|follow[- ]?up|resum[a-z0-9]+) (?:on |up )?(?:from|of) (?:the |your )?"
    r"(?:(?:previous|preceding|last|above|prior|earlier) )?(?:problem|question|part|exercise|example)\b",
    r"\b(?:repeat|redo|same as|solve|modify|generali[sz]e) (?:in |for )?the (?:previous|preceding|last|above) (?:problem|question|exercise)\b",
    r"\b(?:in|see) (?:the )?attach|^attached\b",
    rf"(?:{_START}(?:as )?in|\b(?:from|as in|like in|see|refer(?:ring)? to|using|use|following)) (?:the |your )?"
    r"(?:[a-z0-9]+ (?:of|from|in) the )?(?:previous|preceding|prior|earlier|above) "
    r"(?:problem|question|part|exercise|example|theorem|lemma|result|section|task|item)s?\b",
    r"\bthe (?:previous|preceding|prior|above) (?:exercise|example|theorem|lemma)\b",
    r"\b(?:theorem|result|lemma|formula|problem|example) (?:in|of|from) the (?:previous|preceding|last) [a-z0-9]+\b",
    r"\b(?:from|as in|see|using|by) (?:problem|exercise|example|theorem|lemma|proposition|corollary) (?:no\. ?|\#)?\d",
    rf"{_START}in (?:problem|exercise|example|theorem|lemma|proposition|corollary) (?:no\. ?|\#)?\d",
    r"\b(?:problem|exercise|question) \d+(?:\.\d+)* (?:above|asks|states)\b",
    r"\b(?:from|in|of|using) part \(?(?:[b-h]|i{1,3}|a[.,;?)])\)?(?:[.,;?)']|\s|$)",
    r"\b(?:read|according to|based on|in) the (?:passage|excerpt|article)\b|\bthe (?:passage|excerpt|article) (?:above|below)",
    r"\b(?:problem|question|example|exercise|information|data|statement|text) (?:given |shown )?above(?: to\b|[.,:;?]|\s*$)",
)
_HAS_OTHER = (
    r"tnywr|attach|receive|answers? (?:to|from|of|in|for)|continu|follow|resum|previous|preceding|prior|earlier|above"
    r"|(?:problem|exercise|example|theorem|lemma|proposition|corollary) (?:no|\#|\d)|part|passage|excerpt|article"
)

_WHICH = r"(\bwhich (?:one )?of the(?: following|se)\b[^?:;\n]*\?\s*$)"
_THE_FOLLOWING = (
    r"(\bthe following (?:[a-z0-9]+ )?(?:problem|question|equation|expression|system|integral|limit|series|inequality|sum"
    r"|product|fraction)s?\s*[:.]\s*$)"
)
# before "which of the following", or in it
_LISTED = r"[\n:;]|(?:^|[\s(])(?:1|i|a)[).]|,[^,]*,| or "

_PICTURE_AS_CODE = (
    r"\[asy\]|\\begin\{(?:tikzpicture|tabular|array|asy|picture|[pbv]?matrix|pspicture|figure)\}|\\draw|<svg"
    r"|(?:^|\n)\s*\|[^\n]*\||\t|(?:\n[^\n]*\d[^\n]*){2}"
)
"""A picture as code, or a table: the text holds what it refers to."""
_MANY_NUMBERS = (
    r"(?s)(?:table|chart|graph|plot|histogram|data|schedule|grid|shown|below|here|follow)(?:[^0-9]*[0-9][0-9.,]*){5}"
)
"""A table in words: five numbers behind the word."""


def reference(filters: Filters) -> pl.Expr:
    r"""What the text refers to is not there: nobody can answer. Pictures as code stay.

    drops: How many triangles are there? See https://example.org/a.png
    drops: ![](a.png) How many triangles are there?
    drops: What is the area of the triangle shown in the figure?
    drops: What is the area of the shape in the diagram below?
    drops: In the figure, AB = 3 and BC = 4. Find AC.
    drops: The table below gives the prices. What is their sum?
    drops: Find $|x| + |y|$ as shown in the figure.
    drops: The table is at www.example.org/a.¶| 1 | 2 |
    drops: Use the graph to find the slope of the line.
    drops: Find the area of the shaded region.
    drops: Refer to the table: what was the mean in May?
    drops: Let $T=TNYWR$. Compute $T+1$.
    drops: (Continue from the previous question) How many are left?
    drops: Using your answer to part (a), find the least such n.
    drops: Which of the following numbers is prime?
    keeps: What is the area of the triangle below? [asy] draw((0,0)--(1,0)); [/asy] As shown in the figure, it is right.
    keeps: She skates a figure of eight. How long is it?
    keeps: How many sides does a plane figure with 5 corners have?
    keeps: At the table on the left sit 5 people. How many legs are there?
    keeps: The graph of f is shifted by 3. What is its new zero?
    keeps: The graph of $y = x^2$ is shifted by 3. What is its new zero?
    keeps: What is the area of the region given by the graph of f and bounded by the graph below the line y = 3?
    keeps: Consider the following graph: its vertices are 1 to 9, its edges join primes. How many edges has it?
    keeps: Let f be the following map: x is sent to x + 3. What is f(4)?
    keeps: There are 15 dogs in the picture that Tom draws, and 3 cats. How many animals are there?
    keeps: The table below gives the prices.¶| a | b |¶| 3 | 4 |¶What is their sum?
    keeps: The table shows the goals: Monday 3, Tuesday 4, Wednesday 0, Thursday 2, Friday 5. How many were it?
    keeps: Between circles of radii 3 and 5 the region is shaded. What is the area of the shaded region?
    keeps: Each problem counts twice as much as the previous problem, the first 1. What do 5 of them count?
    """
    if not filters.reference:
        return KEEPS
    reason = "the question refers to what is not in it ({})"
    return pl.coalesce(
        _where(_HAS_LINK, lambda text: found(text, _LINK, reason)),
        _where(_HAS_OTHER, lambda text: found(text, _OTHERS, reason)),
        _where(_HAS_PICTURE, lambda text: found(_without(text, _PICTURE_AS_CODE), _PICTURES, reason)),
        _where(_PICTURE, lambda text: found(_without(text, _PICTURE_AS_CODE, _OWN_PICTURE), _IN_THE_PICTURE, reason)),
        _where(
            _THE_PICTURE,
            lambda text: found(_without(text, _PICTURE_AS_CODE, _OWN_PICTURE, _FORMED_PICTURE), _THE_PICTURE, reason),
        ),
        _where("graph", lambda text: found(_without(text, _PICTURE_AS_CODE, _OWN_GRAPH), _THE_GRAPH, reason)),
        _where(
            "shaded|gr[ae]y|darkened|hatched|striped",
            lambda text: found(_without(text, _PICTURE_AS_CODE, _IS_SHADED), _SHADED, reason),
        ),
        _where(_HAS_CHART, lambda text: found(_without(text, _PICTURE_AS_CODE, _MANY_NUMBERS), _CHARTS, reason)),
        _where(
            "the ", lambda text: found(_without(text, _PICTURE_AS_CODE, _MANY_NUMBERS, _OWN_TABLE), _TABLES, reason)
        ),
        _where("of the(?:se| following)", lambda text: found(_without(text, _LISTED), _WHICH, reason)),
        _where("the following", lambda text: found(text, _THE_FOLLOWING, reason)),
    )


def _where(sign: str, work: Step) -> pl.Expr:
    return apply_where(LOWER, lambda text: text.str.contains(sign), work)


def _without(text: pl.Expr, *patterns: str) -> pl.Expr:
    """The text, or null where one of the patterns shows that it holds what it refers to."""
    return pl.when(~pl.any_horizontal(text.str.contains(pattern) for pattern in patterns)).then(text)

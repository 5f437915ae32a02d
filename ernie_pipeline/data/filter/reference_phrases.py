r"""The phrases that refer to something, in groups, with the signs that it is there; for references.py.

All are searched in lower-cased text. Words are `[a-z]`, not `\w`: the letters of all scripts make a pattern slow.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Phrases that refer to something of one sort.

    `gate` is a cheap pattern that every text with one of them matches; `phrases` a pattern with the phrase in group 1;
    `is_there` what shows that the text holds what they mean.
    """

    gate: str
    phrases: str
    is_there: tuple[str, ...] = ()


def _any(*patterns: str) -> str:
    return f"({'|'.join(patterns)})"


_PICTURE = r"(?:figure|diagram|picture|image|drawing|illustration|photo(?:graph)?|sketch)"
_PLOT = (
    r"(?:(?:bar|line|pie|circle|box|scatter|dot|stem|frequency|velocity|speed|distance"
    r"|position)[ -]?(?:and[ -][a-z]+ )?"
    r"(?:graph|chart|plot|diagram)s?|pictograph|histogram|scatter ?plot|spinner|number line|venn diagram|flow ?chart"
    r"|scale drawing)"
)
# problems are about these too: a graph's edges, a map from A to B, the graph below the x-axis
_CHART = rf"(?:(?:graph|table|chart|map|plot|grid|schedule|spreadsheet|network)s?|{_PLOT})"
_SHAPE = (
    r"(?:grid|solid|polygon|shape|triangle|square|circle|rectangle|quadrilateral|trapezoid|trapezium|parallelogram"
    r"|rhombus|pentagon|hexagon|octagon|cube|prism|pyramid|cone|cylinder|sphere|semicircle|sector|angle|line"
    r"|net|spinner"
    r"|clock|ruler|maze|map|pattern|arrangement|array|path|track|polyhedron|tiling|board|circuit|tree"
    r"|calendar|menu|sign"
    r"|scale|thermometer|rod|pool|garden|room|park|lot|field|roof|box|tile|card|block|dial|pie|kite|model|logo|flag|dot"
    r"|network|flowchart|program|curve|parabola)s?"
)
_SHOWN = (
    r"(?:shown|pictured|depicted|illustrated|drawn|given|indicated|marked|labell?ed|represented|displayed|seen|graphed"
    r"|plotted|sketched|listed|presented|provided|summari[sz]ed|recorded)"
)
_SEEN = r"(?:shown|pictured|depicted|illustrated|graphed|displayed|sketched)"
_WHERE = r"(?:below|above|here|(?:at|on|to) (?:the |its )?(?:left|right)|right)"
_NOT_ABOVE = r"(?:below|here|(?:at|on|to) (?:the |its )?(?:left|right)|right)"
_ADJECTIVE = r"(?:given|above|attached|accompanying|adjoining|adjacent|following|provided|same|below|next)"
_THE = rf"(?:the |this |these )(?:{_ADJECTIVE} )?"
_END = r"(?:[.,;)?!]|\s*$|\n)"
_IS = r" (?:is|are|has|have|shows?|represents?|consists?|contains?|gives|lists|displays|summari[sz]es|records)\b"
_START = r"(?:^|[.?!,;:(]\s*|[.?!,;:]?\$,?\s+|\n\s*)"
_LOOK = (
    r"(?:see|refer(?:ring)? to|consult|use|using|look(?:ing)? at|observe|examine|study|read|from|according to|based on"
    r"|consider)"
)
_ASKS = r"(?:find|determine|what|how|calculate|compute|estimate|answer|solve|help|we|which)"

_TASK = r"(?:problem|question|part|exercise|example|theorem|lemma|proposition|corollary)"
_EARLIER = r"(?:previous|preceding|prior|earlier|above|last)"

_CODE = (
    r"\[asy\]|\\begin\{(?:tikzpicture|tabular|array|asy|picture|[pbv]?matrix|pspicture|figure)\}|\\draw|<svg"
    r"|(?:^|\n)\s*\|[^\n]*\||\t|(?:\n[^\n]*\d[^\n]*){2}"
)
"""A picture as code, or a table: the text holds what it refers to."""
_NUMBERS = (
    r"(?s)(?:table|chart|graph|plot|histogram|data|schedule|grid|shown|below|here|follow)(?:[^0-9]*[0-9][0-9.,]*){5}"
)
"""A table in words: five numbers behind the word."""

_LINK = Group(
    gate=r"https?:|www\.|!\[|<im|graphics|[\[(]im|[\[(]attach",
    phrases=(
        r"(https?://\S+|\bwww\.[a-z0-9_-]+\.[a-z]+|!\[[^\]]*\]\([^)]*\)?|<ima?ge?\b|\\includegraphics\b"
        r"|\[(?:img|image|attach[a-z]*)\b|\((?:image|img)\))"
    ),
)

_PICTURES = Group(
    gate=(
        r"the graph,|fig|diagram|picture|image"
        r"|drawing|illustrat|photo|sketch|shown|depicted|displayed|graphed|attached"
        r"|accompanying"
        r"|adjoining|adjacent|to scale|indicated|marked|label| below| above| here\b"
    ),
    phrases=_any(
        rf"\b{_SHOWN} (?:in|on|by|as in|like) {_THE}(?:[a-z]+ )?{_PICTURE}\b",
        rf"\b{_LOOK} (?:{_THE})?{_PICTURE}s?(?: {_WHERE}| {_SHOWN}\b|{_END}|:| to\b)",
        rf"\b(?:attached|accompanying|adjoining|adjacent) (?:[a-z]+ )?(?:{_PICTURE}|{_CHART})",
        rf"\b(?:the|this|these|following|each) (?:[a-z]+ )?{_PICTURE}s? (?:{_SHOWN} )?{_WHERE}\b",
        rf"\bthe (?:following|above|given) (?:[a-z]+ )?{_PICTURE}",
        r"\b(?:figure|figs?\.) ?\(?(?:[1-79]|\d\.\d)|\b(?:in|see|from|of|on) (?:diagram|picture) ?\(?\d|\bin figs?\.",
        r"\b(?:figure|diagram|drawing|sketch|picture) (?:is |has been )?not (?:drawn )?to scale\b",
        r"\(not (?:drawn )?to scale",
        rf"{_START}(?:from|using) the graph,",
        rf"\bas (?:{_SEEN}|drawn|indicated|marked|labell?ed)(?: (?:below|above|here|at|in the|on the)\b"
        rf"|[.,:;)?!]|\s*$)",
        rf"\b{_SEEN} {_NOT_ABOVE}(?:[.,)?]|\s*$|{_IS})",
        rf"\b(?:the|this|each) (?:[a-z]+ )?{_SHAPE} (?:{_SHOWN} )?{_NOT_ABOVE}(?:{_END}|{_IS}| (?:made|with)\b)",
        rf"\b(?:the|this) (?:[a-z]+ )?{_PLOT} (?:{_SHOWN} )?{_WHERE}(?:{_END}|{_IS})",
        r"\bshown in the \$?x ?y\$?[ -]?plane|\bshown in the coordinate plane",
        rf"\b(?:the|this) (?:[a-z0-9$-]+ ){{0,3}}{_SHAPE} {_SEEN}(?: here)?(?:{_END}|{_IS}| [a-z]{{2,}}s\b)",
        rf"\b(?:graph|chart|table|{_PICTURE}|{_PLOT}) {_SEEN}(?: here)?(?:{_END}|{_IS}| if\b| when\b| in\b)",
    ),
    is_there=(_CODE,),
)

# what stands above may be a formula or numbers
_ABOVE = Group(
    gate="above|preceding|previous",
    phrases=_any(
        rf"\b{_SEEN} above(?:[.,)?]|\s*$|{_IS})",
        rf"\b(?:the|this|each) (?:[a-z]+ )?{_SHAPE} (?:{_SHOWN} )?above(?:{_END}|{_IS}| (?:made|with)\b)",
        rf"\bthe {_EARLIER} (?:equation|formula|expression|inequality)\b",
    ),
    is_there=(
        _CODE,
        rf"\ban? (?:[a-z0-9-]+ )?(?:[a-z0-9-]+ )?{_SHAPE}\b",
        r"(?s)(?:[0-9][0-9.,]*[^0-9]*){5}.*above",
        r"(?s)(?:=|\$|\\\[|\\\(|\\begin).*(?:above|preceding|previous)",
    ),
)

_OWN_PICTURE = (
    rf"\b(?:an?|his|her|their|my|each|every|one|another|some|plane|solid|geometric|\d) (?:[a-z0-9-]+ )?{_PICTURE}"
    rf"|{_PICTURE} (?:that|which|s?he|they|frame|book|album|shop|store|gallery|hook|puzzle)s?\b"
    r"|\bscale of\b|\bscale 1|\bpaint(?:s|ed|ing)\b|figure skat|\bfigures\b"
    r"|\b(?:draws?|drew|paint\w*|takes?|took|hangs?|hung) (?:[a-z]+ )?(?:the )?(?:picture|photo|image)"
).replace(r"\w", "[a-z]")
_FORMED_PICTURE = (
    r"\bscale\b|\b(?:bounded|formed|enclosed|described|obtained|resulting|defined)\b|digit|pixel|mirror"
    r"|reflect|rotat|translat|transform|dilat|\bmap|\bunder\b"
)

# an introduced picture is there, and so is one in words
_IN_THE_PICTURE = Group(
    gate=rf"{_PICTURE}|chart|plot|histogram",
    phrases=_any(
        rf"{_START}(?:as )?(?:in|from|on) {_THE}(?:figure|diagram|drawing|sketch|picture|image)s?(?:,"
        rf"| {_SHOWN}| {_WHERE})",
        rf"{_START}(?:as )?in (?:the|this) (?:figure|diagram)s?\b",
        rf"\b(?:in|from|on|see|given|using) (?:the|this) (?:{_ADJECTIVE} )?(?:figure|diagram|drawing"
        rf"|sketch|picture)s?\b",
        r"\b(?:in|from|see|given|using|with) (?:the|this) (?:[a-z]+ )?(?:bar chart|pie chart|chart|plot"
        r"|histogram|scatterplot)s?\b",
        rf"\bthe (?:[a-z]+ )?{_PICTURE} (?:above |below )?(?:shows|represents|illustrates|depicts|gives)\b",
    ),
    is_there=(_CODE, _OWN_PICTURE, _NUMBERS),
)
_THE_PICTURE = Group(
    gate=_PICTURE,
    phrases=_any(
        rf"\b(?:in|of|on|from) (?:the|this) {_PICTURE}(?:{_END}|:| (?:is|are) )",
        rf"\b(?:the|this) {_PICTURE} consists of\b",
        r"\bdoes (?:the|this) (?:figure|diagram) have\b",
        r"\bnext (?:figure|shape|picture|diagram|image) in (?:the|this)\b",
    ),
    is_there=(_CODE, _OWN_PICTURE, _FORMED_PICTURE),
)
_AT_A_SIDE = Group(
    gate=r"(?:on|at|to) the (?:left|right)",
    phrases=_any(
        rf"\bthe (?:[a-z]+ )?(?:{_PICTURE}|chart|graph|{_PLOT}|sign|triangle|rectangle|polygon|shape|solid|clock|grid"
        rf"|quadrilateral|net|scale) (?:on|at|to) the (?:left|right)(?:{_END}|{_IS}| [a-z]+s\b)",
        rf"{_START}(?:on|at|to) the (?:left|right) (?:is|are) (?:an?|the)\b",
    ),
    is_there=(_CODE, r"(?s)left.*right|right.*left"),
)

_GIVEN_FUNCTION = r"\b(?:y|r|[a-z]\s?\([xt]\))\s?\$?\s?=|polynomial|passes through"
_THE_GRAPH = Group(
    gate="graph",
    phrases=_any(
        rf"{_START}(?:from|on|in) {_THE}graph,",
        rf"\b(?:{_LOOK}|in|of|on|for|with) {_THE}graph(?:{_END}| to\b|{_IS})",
        r"\b(?:the|this) graph(?: of (?:the |a )?[a-z]*\s?function)? (?:above |below )?(?:shows|represents"
        r"|displays|to)\b",
        r"\b(?:use|using|from|based on) the graph of (?:the |a )?(?:function|line|parabola|curve|\$f\$|f)"
        r"(?: to\b| above|[,.])",
        rf"\bgraph of (?:the |a )?\S+(?: \S+)? (?:above|below)(?:{_END}|{_IS})",
    ),
    is_there=(
        _CODE,
        r"\ban? (?:[a-z0-9-]+ )?graph\b|\bgraphs\b|\bvert(?:ex|ices)\b|\bedges?\b|\bgraph \$?[a-z]\$?\b",
        r"\bgraph (?:with|where|whose|in which)|\bgraph of (?:\$?[xy\\2-9]|\$[a-z]*\s?\(?[xyt2-9\\])",
        _GIVEN_FUNCTION,
    ),
)

_SHADES = r"(?:(?:un)?shaded|gr[ae]y|darkened|hatched|striped)"
_SHADED = Group(
    gate="shaded|gr[ae]y|darkened|hatched|striped",
    phrases=_any(
        rf"\b{_SHADES} (?:[a-z]+ )?(?:region|area|part|portion|section|sector|triangle|square|rectangle|circle|figure"
        r"|shape|segment|quadrilateral|polygon|ring|annulus|parallelogram|trapezoid|hexagon|surface|fraction|zone|space"
        r"|cell)s?\b",
        r"\b(?:fraction|part|percent(?:age)?|portion|much|ratio|area) of (?:the|this) (?:[a-z]+ ){0,3}(?:is|are) shaded"
        r"\s*\?",
    ),
    is_there=(
        _CODE,
        r"\b(?:is|are|be|was|were|been|being|gets?|and|then|he|she|they|we|i|you) (?:then |also |all |now )?"
        r"(?:colou?red or )?(?:(?:un)?shade[sd]?|gr[ae]y|darkened|hatched|striped|colou?red)\b[^?\s]*[^?]",
        r"\ban? shaded\b|\bshad(?:es|ing)\b|\bshade (?:the|in|all|one|two|each|every|exactly|some|any|[0-9])",
        r"\b(?:has|have|having|with) (?:[a-z0-9]+ ){0,4}shaded\b",
        r"\bshaded (?:[a-z]+ )?(?:region|area|part|portion|section|ring)s?,? (?:[a-z]+ ){0,3}?(?:bounded"
        r"|enclosed|between"
        r"|inside|outside|within|formed|common|consist[a-z]+|lies|lying|made|that (?:is|lies)|which (?:is|lies)|under"
        r"|defined)\b",
    ),
)

_CHARTS = Group(
    gate=(
        r"table|chart|graph|plot|data|map|spinner|number line|venn|drawing|below|above|histogram|shown"
        r"|pictured|depicted"
        r"|displayed|illustrated|\bhere |right |left "
    ),
    phrases=_any(
        rf"\b{_LOOK} {_THE}(?:chart|plot|{_PLOT}|data)(?: {_WHERE}| to\b| {_SHOWN}|{_END}|:)",
        rf"\b(?:see|refer(?:ring)? to|use|using|look at|read|according to|based on) {_THE}(?:[a-z]+ )?table"
        rf"(?: {_WHERE}| to {_ASKS}| {_SHOWN}|{_END}|:)",
        rf"{_START}(?:from|in) {_THE}(?:table|chart|{_PLOT}), {_ASKS}\b",
        rf"\b(?:the|this) (?:[a-z]+ )?{_CHART}(?: of [a-z]+)? (?:{_SHOWN} )?(?:below|above)(?:[.,:;)?]|$|{_IS})",
        rf"\b(?:the|this) (?:[a-z]+ )?(?:table|chart|{_PLOT}) (?:above |below )?"
        r"(?:shows|displays|lists|summari[sz]es|records|represents|gives)\b",
        r"\bthe (?:[a-z]+ )?map shows (?:the|two|three|four|how|where|part|some)\b",
        rf"\b(?:the|this) following (?:[a-z]+ )?(?:table|chart|{_PLOT})s?\b",
        rf"\b{_SHOWN} (?:in|on|by) {_THE}(?:[a-z]+ )?(?:table|chart|{_PLOT})\b",
        rf"\b{_SHOWN} (?:in|on|by) {_THE}graph{_END}|\bgraphed (?:on|in) the\b",
        rf"\b(?:{_PICTURE}|{_PLOT}|table|chart|graph)s?(?: of [^.?]+?)? (?:is|are) {_SHOWN}(?: {_WHERE}|{_END})",
        rf"\bwhose graph is {_SHOWN}\b",
        rf"\b(?:is|are) (?:{_SEEN}|drawn|plotted|given)(?: {_WHERE}){_END}",
        rf"\b(?:is|are) {_SEEN}[.,;]",
        rf"\bin (?:the|this) (?:[a-z]+ )?(?:chart|{_PLOT}){_END}",
        r"\b(?:in|see|from) table [0-9]",
        rf"\b(?:shown|pictured|displayed) on {_THE}(?:grid|coordinate|axes|map|number line)\b",
        r"\bthe (?:[a-z]+ ){1,3}shown(?:[.,)?]|\s*$| [a-z]{2,}s\b)",
        rf"{_START}(?:shown )?(?:below|above|here) (?:is|are) (?:an?|the|two|three|four|part)\b",
    ),
    is_there=(_CODE, _NUMBERS, r"(?s)(?:[0-9][0-9.,]*[^0-9]*){5}.*above"),
)
_TABLES = Group(
    gate="table|chart|graph|diagram|figure",
    phrases=_any(
        r"\b(?:complete|fill in|extend|copy) the (?:[a-z]+ )?(?:table|chart|diagram|figure)\b",
        r"\b(?:given|use|using|from|consider) the (?:[a-z]+ )?table of\b",
        r"\b(?:data|values?|information|numbers?|entr(?:y|ies)|results) (?:in|from|of) the (?:[a-z]+ )?"
        r"(?:table|chart|graph)\b",
    ),
    is_there=(
        _CODE,
        _NUMBERS,
        r"\ban? (?:[a-z0-9$\\-]+ ){0,3}(?:table|chart|graph|diagram)\b|[0-9]\$? ?(?:x|\x{d7}|by|\\times) ?\$?[0-9]"
        r"|graph of",
    ),
)

_OTHERS = Group(
    gate=(
        r"t ?n ?y ?w ?r|attach|receive|answers? (?:to|from|of|in|for)|continu|follow|resum|previous|preceding"
        r"|prior|earlier|above"
        rf"|{_TASK} (?:no|\#|[0-9])|part|passage|excerpt|article|of problem|repeat|redo"
    ),
    phrases=_any(
        r"\bt ?n ?y ?w ?r\b|\bthe number you (?:will )?received?\b",
        r"\blet \$?[a-z]\$? (?:be|denote|equal) (?:the )?(?:(?:value|result) of )?(?:your |the )?answer "
        rf"(?:to|from|of|in) (?:the )?(?:problem|question|part|{_EARLIER})\b",
        r"\b(?:the|your) answers? (?:to|from|of|in|for) (?:(?:the )?(?:part|exercise)s? "
        rf"(?:\#?[0-9]+|\(?[a-h]\)|[a-h]\b)|(?:the |your )?{_EARLIER} )",
        r"\b(?:continu[a-z]+|follow[- ]?up|resum[a-z]+) (?:on |up )?(?:from|of) (?:the |your )?"
        rf"(?:{_EARLIER} )?{_TASK}\b|\(continu[a-z]+\)",
        rf"\b(?:repeat|redo|same as|solve|modify|generali[sz]e) (?:in |for )?(?:the {_EARLIER} {_TASK}|{_TASK} [0-9])",
        r"\b(?:in|see) (?:the )?attach|^attached\b",
        rf"(?:{_START}(?:as )?in|\b(?:from|as in|like in|see|refer(?:ring)? to|using|use|following)) (?:the |your )?"
        rf"(?:[a-z]+ (?:of|from|in) the )?{_EARLIER} (?:{_TASK}|result|section|task|item)s?\b",
        rf"\bthe {_EARLIER} (?:exercise|example|theorem|lemma)\b",
        r"\b(?:theorem|result|lemma|formula|problem|example) (?:in|of|from) the (?:previous|preceding|last) [a-z]+\b",
        rf"\b(?:from|as in|see|using|by|refer(?:ring)? to|under|conditions? of|setting of|notation of"
        rf"|results? of) {_TASK} "
        r"(?:no\. ?|\#)?[0-9]",
        r"\bin (?:theorem|lemma|proposition|corollary|exercise|example) [0-9]",
        r"\b(?:problem|exercise|question) [0-9.]+ (?:above|asks|states)\b",
        r"\b(?:from|in|of|using) part \(?(?:[b-h]|i{1,3}|a[.,;?)])\)?(?:[.,;?)']|\s|$)",
        r"\b(?:read|according to|based on|in) the (?:passage|excerpt|article)\b",
        r"\bthe (?:passage|excerpt|article) (?:above|below)",
        r"\b(?:problem|question|example|exercise|information|data|statement|text) (?:given |shown )?above"
        r"(?: to\b|[.,:;?]|\s*$)",
    ),
)
# in a story of a test these are the test's
_OF_NO_TEST = Group(
    gate=r"previous|preceding|questions? [0-9]|problems? [0-9]|last problem",
    phrases=_any(
        r"\bthe (?:previous|preceding) (?:problem|question|part)\b",
        r"\b(?:in|answers? (?:to|from|of|for)) (?:problem|question)s? (?:no\. ?|\#)?[0-9]",
    ),
    is_there=(
        r"\b(?:test|exam|quiz|contest|competition|tournament|game|points?|score[sd]?|prize|worth|marks|each|every)\b"
        r"|\b(?:s?he|they)\b|solved|answered|students?",
    ),
)

# before "which of the following", or in it
_LISTED = r"[\n:;]|(?:^|[\s(])(?:1|i|a)[).]|,[^,]*,| or "
_WHICH = Group(
    gate="which (?:one )?of the(?:se| following)",
    phrases=r"(\bwhich (?:one )?of the(?: following|se)\b[^?:;\n]*\?\s*$)",
    is_there=(_LISTED,),
)
_NOTHING_FOLLOWS = Group(
    gate="the following",
    phrases=(
        r"(\bthe following (?:[a-z]+ )?(?:problem|question|equation|expression|system|integral|limit|series|inequality"
        r"|sum|product|fraction)s?\s*[:.]\s*$)"
    ),
)

GROUPS = (
    _LINK,
    _OTHERS,
    _OF_NO_TEST,
    _PICTURES,
    _ABOVE,
    _IN_THE_PICTURE,
    _THE_PICTURE,
    _AT_A_SIDE,
    _THE_GRAPH,
    _SHADED,
    _CHARTS,
    _TABLES,
    _WHICH,
    _NOTHING_FOLLOWS,
)

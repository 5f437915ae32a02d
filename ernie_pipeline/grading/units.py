r"""Units: what a word behind a number means. README.md states the rule.

A unit is a factor and dimensions (`Unit`), so that 500 cm is 5 m; a noun ("people") is a unit of its own dimension.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from ernie_pipeline.grading.word_set import word_set


@dataclass(frozen=True)
class Unit:
    """`factor` to the base unit of `dimensions`, which are (name, power), sorted; `noun`: words that are no unit."""

    factor: Fraction
    dimensions: tuple[tuple[str, int], ...]
    noun: tuple[str, ...] = ()


_LINES = """
length 1: m meter meters metre metres
length 1/100: cm centimeter centimeters centimetre centimetres
length 1/1000: mm millimeter millimeters millimetre millimetres
length 1/10: dm decimeter decimeters decimetre decimetres
length 1000: km kilometer kilometers kilometre kilometres
length 1/1000000: um micrometer micrometers
length 1/1000000000: nm nanometer nanometers
length 127/5000: in inch inches
length 381/1250: ft foot feet
length 1143/1250: yd yard yards yds
length 201168/125: mi mile miles
time 1: s sec secs second seconds
time 60: min mins minute minutes
time 3600: h hr hrs hour hours
time 86400: day days
time 604800: week weeks wk wks
month 1: month months
month 12: year years yr yrs
mass 1: kg kilogram kilograms kilo kilos kgs
mass 1/1000: g gram grams
mass 1/1000000: mg milligram milligrams
mass 1000: t ton tons tonne tonnes
mass 45359237/100000000: lb lbs pound pounds
mass 45359237/1600000000: oz ounce ounces
volume 1: L l liter liters litre litres
volume 1/1000: mL ml milliliter milliliters millilitre millilitres
gallon 1: gal gallon gallons
gallon 1/4: quart quarts qt
gallon 1/8: pint pints pt
gallon 1/16: cup cups
area 1: acre acres
hectare 1: ha hectare hectares
dollar 1: $ dollar dollars usd USD buck bucks
dollar 1/100: cent cents c\u00a2
euro 1: euro euros EUR
sterling 1: pound_sterling GBP
rupee 1: rupee rupees Rs INR
yen 1: yen
yuan 1: yuan RMB
angle 1: deg degree degrees
radian 1: rad radian radians
celsius 1: celsius Celsius degC
fahrenheit 1: fahrenheit Fahrenheit degF
kelvin 1: K kelvin kelvins Kelvin
force 1: N newton newtons
force 1000: kN
force 1/100000: dyn dyne dynes
inductance 1: H henry henries
inductance 1/1000: mH
capacitance 1: F farad farads
flux_density 1: T tesla teslas
flux 1: Wb weber webers
decibel 1: dB decibel decibels
luminosity 1: lm lumen lumens
candela 1: cd candela
activity 1: Bq becquerel
lightyear 1: ly light-years lightyears
astronomical 1: AU au
parsec 1: pc parsec parsecs
parsec 1000: kpc
parsec 1000000: Mpc
time 1/1000: ms millisecond milliseconds
time 1/1000000: us microsecond microseconds
time 1/1000000000: ns nanosecond nanoseconds
calorie 1: cal calorie calories
calorie 1000: kcal
erg 1: erg ergs
atmosphere 1: atm
bar 1: bar bars
gauss 1: gauss
energy 1: J joule joules
energy 1000: kJ
electronvolt 1: eV
electronvolt 1000: keV
electronvolt 1000000: MeV
electronvolt 1000000000: GeV
power 1: W watt watts
power 1000: kW
power 1000000: MW
pressure 1: Pa pascal pascals
pressure 1000: kPa
voltage 1: V volt volts
voltage 1000: kV
voltage 1/1000: mV millivolts
current 1/1000: mA milliamps
current 1: A amp amps ampere amperes
resistance 1: ohm ohms
frequency 1: Hz hertz
frequency 1000: kHz
frequency 1000000: MHz
frequency 1000000000: GHz
substance 1: mol mole moles
charge 1: C coulomb coulombs
"""
"""dimension, factor to its base unit: names."""


def _table() -> dict[str, tuple[Fraction, str, int]]:
    table = {}
    for line in _LINES.strip().splitlines():
        head, names = line.split(":")
        dimension, factor = head.split()
        for name in names.split():
            table[name] = (Fraction(factor), dimension, 1)
    return table


_TABLE = _table()
_SHORT = {"mph": ("mi", "/", "h")} | dict.fromkeys(("kph", "kmh", "kmph"), ("km", "/", "h"))
KNOWN_UNITS = frozenset(_TABLE) | frozenset(_SHORT)
"""Every name of a unit that is known."""

ATTACHED = word_set("cm mm km kg mL ml kPa kJ kN kW Hz mph")
"""Units that may follow a number without a space in italic type too: nobody multiplies these letters."""

ROMAN_LETTERS = word_set("m g s h L l N J W V A K C t H F T")
"""Letters that are units in upright type behind a number."""

FACTORS = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
    "dozens": 12, "score": 20, "pair": 2, "pairs": 2, "hundreds": 100, "thousands": 1000, "millions": 10**6,
}  # fmt: skip
"""Words that multiply the number before them."""

_FILLERS = word_set("a an the of total in all exactly about") - {"about"}
_TELLING = word_set(
    "or and more less than to if when unless not no non without negative minus plus times over below above under ",
    "never at least most about approximately nearly almost roughly fewer greater between other otherwise wrong ",
    "remainder mod modulo factorial root base percent squared cubed half double twice up down but for where except ",
    "only is are was be does do has have maybe perhaps either neither both each per equals equal even odd positive ",
    "through until from with by as infinity infinite undefined none nothing it any every some th st nd rd point ",
    "first second third hundredths tenths thousandths halves thirds quarters fourths fifths sixths eighths tenth ",
    "doesn't isn't can't cannot impossible false true answer solution solutions exist exists choose multiple divided ",
    "pm am noon midnight respectively too small large high low short long late early remaining left extra beyond ",
    "before after ago later earlier past since smaller larger bigger higher lower ways?",
) - {"per", "squared", "cubed", "second", "left", "remaining"}
"""Words that say more of a number than what is counted."""


@lru_cache(maxsize=2048)
def parse_unit(words: tuple[str, ...]) -> Unit | None:
    """The unit that the words spell ("square", "cm"; "km", "/", "h"; "people"), or None: they say something else.

    A power follows its unit as "^2" or a word "squared".
    """
    if len(words) > 1 and words[0].lower() == "more":
        words = words[1:]
    if words[-2:] == ("years", "old") or words[-2:] == ("year", "old"):
        words = words[:-1]
    if tuple(word.lower() for word in words) in (("times",), ("time",)):
        return Unit(Fraction(1), (("noun", 1),), ("time",))
    known = _known(tuple(part for word in words for part in _SHORT.get(word, (word,))))
    if known is not None:
        return known
    nouns = tuple(_singular(word) for word in words if word.lower() not in _FILLERS and word.isalpha())
    if not nouns or len(words) > 4 or any(not word.replace("-", "").isalpha() for word in words):
        return None
    if any(word.lower() in _TELLING or word.lower() in FACTORS for word in words):
        return None
    if any(len(word) < 3 and word not in KNOWN_UNITS and word.lower() not in _FILLERS for word in words):
        return None
    return Unit(Fraction(1), (("noun", 1),), nouns)


def _known(words: tuple[str, ...]) -> Unit | None:
    """The unit where every word is one."""
    factor, dimensions = Fraction(1), dict[str, int]()
    sign, pending = 1, 1
    if words and words[-1].lower() in ("units", "unit"):
        generic = words[:-1]
        if all(word.lower() in ("square", "cubic", "sq", "cu", "linear") for word in generic):
            return Unit(Fraction(1), (), ("unit",))
    if words and words[0].lower() in ("units", "unit") and all(re.fullmatch(r"\^?\d", w) for w in words[1:]):
        return Unit(Fraction(1), (), ("unit",))
    last: tuple[Fraction, str, int] | None = None
    for word in words:
        lower = word.lower()
        if word in ("/", "per", "a", "an"):
            sign = -1
        elif lower in ("square", "sq"):
            pending = 2
        elif lower in ("cubic", "cu"):
            pending = 3
        elif word in ("*", ".", "-"):
            continue
        elif lower in ("squared", "cubed") or word.startswith("^"):
            if last is None:
                return None
            power = {"squared": 2, "cubed": 3}.get(lower) or int(word[1:])
            unit_factor, name, before = last
            factor *= unit_factor ** (before * (power - 1))
            dimensions[name] += before * (power - 1)
            last = None
        else:
            unit = _TABLE.get(word) or _TABLE.get(lower if len(word) > 3 else word)
            if unit is None:
                return None
            power = sign * pending
            factor *= unit[0] ** power
            dimensions[unit[1]] = dimensions.get(unit[1], 0) + power
            last, pending = (unit[0], unit[1], power), 1
    if not dimensions:
        return None
    return Unit(factor, tuple(sorted((name, power) for name, power in dimensions.items() if power)))


def _singular(noun: str) -> str:
    noun = noun.lower()
    irregular = {"people": "person", "men": "man", "women": "woman", "children": "child", "feet": "foot"}
    if noun in irregular:
        return irregular[noun]
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-3] + "y"
    if noun.endswith(("ses", "xes", "ches", "shes")):
        return noun[:-2]
    return noun[:-1] if noun.endswith("s") and not noun.endswith("ss") else noun


def agree(one: Unit, other: Unit) -> Fraction | None:
    """How many of `other` one of `one` is; None where they measure different things.

    "units" agrees with every unit, and a noun with one that it is a part of ("apples" with "red apples").
    """
    if "unit" in one.noun or "unit" in other.noun:
        return Fraction(1)
    if one.noun or other.noun:
        fits = bool(one.noun and other.noun) and (set(one.noun) <= set(other.noun) or set(other.noun) <= set(one.noun))
        return Fraction(1) if fits else None
    if {one.dimensions, other.dimensions} == {(("sterling", 1),), (("mass", 1),)}:
        return Fraction(1) if _TABLE["pound"][0] in (one.factor, other.factor) else None  # 30 pounds of money
    return one.factor / other.factor if one.dimensions == other.dimensions else None

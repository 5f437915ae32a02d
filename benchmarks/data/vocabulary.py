"""The words and sentences that the synthetic questions are made of. A sentence's slots name the pools below.

Slots: {N} thing, {A} what it is like, {V} what it does, {P} person, {F} formula, {E} equation, {X} letter, {K} number.
At most four fixed words stand between two slots, so that runs of eight words are as rarely shared as in real questions.
"""


def _words(text: str) -> list[str]:
    return text.split()


def _lines(text: str) -> list[str]:
    return text.strip().splitlines()


THINGS = _words("""
aquarium arrow atom auction bakery ball balloon banknote barrel basket beam bead bell bicycle bishop blanket board
boat bolt book bottle box bracelet bridge brush bucket builder bus button cable cake calculator camel candle canoe car
card carpenter carpet cart castle cell chain chair cheese chessboard chip chord circle clock cloth coin column
committee compass cone container contest cord corridor counter courier crate cube cup curve cyclist cylinder decimal
desk diagonal die digit disc divisor dog domino door drawer drum edge ellipse engine envelope eraser face factor
factory farm fence ferry field fish flask floor flower forest fountain frame fraction garden gate gear glass globe
goat grid guest hallway hammer harbor hat hedge helmet hexagon hive hook horse hotel hourglass house island jacket jar
jug juggler kettle key kite knight knot ladder lake lamp lantern lattice leaf lemon lever library lid lift locker
lottery magnet mailbox map marble market mask mast matchstick meadow medal melon merchant metronome mill mirror motor
museum nail necklace needle net newspaper notebook number nut oar octagon orchard orchestra oven paddle page painter
palace pallet panel parabola parade park passenger path pavement pebble pencil pendulum pentagon permutation piano
pillar pipe pirate plank plate player polygon polynomial pond portrait postcard pouch prism processor professor
program puddle pulley pump puzzle pyramid quadrilateral quilt rabbit racer radio raft railing ramp rectangle reservoir
rhombus ribbon ring river robot rod roof room root rook rope ruler runner sack sailor salad satellite scale school
screw sculpture segment sequence server shelf shell ship signal skater sled snail solution spear sphere spider spiral
spool spring square stack stadium staircase stamp station statue stick stone strategy stream string student subset
swimmer symbol tangent tank tape target teapot tent theater thread ticket tile timer toll tournament tower town track
train trapezoid tray treasure tree triangle trophy truck tunnel turtle umbrella urn valley van vase vector vehicle
vendor vertex village vine violin voter wagon wall warehouse watch wave wheel whistle window wire wizard workshop
yacht yard zebra zero
""")

LIKE = _words("""
acute ancient antique arithmetic average balanced bent blue bounded broad broken bronze central certain cheap circular
clean closed coarse cold common compact complex constant continuous convex copper cracked crooked crowded curved
cyclic damaged dark decreasing deep dense digital distinct double dry dull early eastern elastic elliptic empty equal
even excellent expensive external fair famous fast finite flat flexible folded fragile fresh frozen full generous
gentle geometric gigantic golden green half harmonic heavy hidden hollow horizontal huge identical imaginary
increasing inner integral internal invertible iron irrational isosceles labeled large late lazy light linear little
local lonely long loud lower lucky maximal metal middle minimal mixed modern modest monic movable mysterious narrow
natural neighboring new noisy nonzero northern oblique odd old open opposite orange ordinary outer pale parallel
perfect periodic plain plastic polished positive previous prime private public purple quadratic quick quiet random
rational red regular reliable rigid ripe rough round rusty scalene secret sharp shiny short silent silver simple
slanted slow small smooth soft solid southern square standard steep striped strong sturdy sweet symmetric tall thick
thin tiny transparent uniform unknown upper usual vacant valid vertical virtual warm weak western wet white wide wild
winning wooden worn yellow young
""")

DOES = _words("""
absorbs accepts accompanies adds adjoins approaches arranges balances bisects blocks borrows bounds buys carries
catches circles climbs closes collects connects contains controls copies counts covers crosses cuts defines delivers
determines divides doubles draws earns encloses enters equals exceeds exchanges fills finishes follows forms gains
generates gives guards hides hits holds inspects intersects joins keeps leaves lifts links loads locates loses makes
matches measures meets minimizes mixes moves multiplies needs occupies opens orders overtakes owns paints parts passes
pays permutes picks places plays pours precedes produces pulls pushes raises reaches receives reduces reflects removes
repairs repeats replaces represents requires returns rotates saves scores sees selects sells sends separates serves
shares sorts splits spends starts stops stores strikes surrounds swaps takes tests throws touches translates trisects
tries turns uses visits wants weighs wins wraps writes
""")

PEOPLE = _words("""
Ada Agnes Ahmed Aiko Albert Alice Amara Amir Ana Andre Anika Anton Aria Arun Astrid Ayesha Bastian Beatriz Ben Bianca
Boris Bruno Carla Carlos Celine Chen Chidi Clara Dalia Damian Daniel Daria David Deepa Diego Dmitri Edgar Elena Elias
Elif Emil Emma Esteban Eva Fatima Felix Fiona Florian Freya Gabriel Gina Giorgio Greta Gustav Hana Hans Harriet Hassan
Helena Hugo Ibrahim Ida Igor Ilse Imran Ines Ingrid Isaac Ivan Jana Jasper Javier Jin Joao Jonas Josefa Julia Kai
Karim Katya Kenji Kiran Klara Kofi Lars Laura Leila Leon Lina Lucia Luis Magda Malik Mara Marcel Maria Marta Mateo Mei
Mila Miriam Nadia Naomi Nikhil Nina Noah Nora Odile Olaf Olga Omar Oscar Paola Pavel Pedro Petra Priya Quentin Rafael
Rania Raul Rita Rosa Ruben Sana Sasha Selma Simon Sofia Stefan Sunil Tamar Tara Teodor Thomas Tomas Uma Ursula Valeria
Vera Victor Wanda Wei Xenia Yara Yusuf Zara Zoe
""")

SETUPS = _lines("""
Let {X} be the {A} {N} that {V} {F}.
Suppose that {E}, where {X} is {A}.
A {A} {N} {V} {K} {A} {N}s hourly near {P}.
{P} {V} a {A} {N} and {K} {N}s.
The {A} {N} of {P} {V} {F} before the {N} {V} {X}.
Consider {E} for every {A} {N} {X}.
On {P}'s {N} there are {K} {A} {N}s, of which {K} are {A}.
Each {N} {V} exactly {K} {A} {N}s, while {P} {V} {F}.
Define {F} whenever {X} {V} the {A} {N}.
Given {E} and {E}, the {A} {N} {V} {X}.
In a {A} {N} with {F}, {P} {V} {K} {N}s.
Whenever {P} {V} the {N}, a {A} {N} {V} {K} {A} {N}s.
Points {X} and {X} lie on {A} {N} {X}, with {E}.
The {N} {V} {A} {N}s at {F} per {N}.
After {K} minutes the {A} {N} {V} {P} and {V} {F}.
Denote by {X} a {A} {N} with {E}.
{P} and {P} share {K} {N}s so that {P} {V} {F}.
If the {A} {N} {V} {X}, then {E}.
No {A} {N} {V} more than {K} {N}s of {P}.
Between the {A} {N} and the {N}, {F} {V} {K}.
For real {X}, the {N} {F} {V} the {A} {N}.
Assume {X} {V} {F} while {E}.
""")

ASKS = _lines("""
Find {F}.
Find the {A} {N} of {F}.
Determine all {A} {X} with {E}.
Determine {F} if {E}.
How many {A} {N}s does {P} {V}?
How many {N}s satisfy {E}?
What {A} {N} has {F}?
What is {X} if {E}?
Compute {F}.
Calculate the {N} of {F} when {X} {V} {K}.
Evaluate {F} at {E}.
Solve {E} for {X}.
Express {X} by {A} {N}s and {F}.
What {A} {N} {V} {F}?
Find {A} {X} such that {F} {V} {K}.
How likely is it that {P} {V} {K} {A} {N}s?
How can {P} arrange {K} {A} {N}s around {F}?
""")

STOCK = _lines("""
It can be written as {F}, where $m$ and $n$ are relatively prime positive integers. Find $m+n$.
Find the remainder when {F} is divided by 1000.
Find the number of ordered pairs of positive integers such that {E}.
""")
"""Endings that many real problems, and benchmarks, share word by word."""

r"""What maths problems say over and over: assumed common before a source is looked at, which matters in a small one.

In a source of a hundred rows nothing shows that "relatively prime positive integers" is a stock phrase. So the document
frequencies begin with those of `ROWS` imagined rows, in which these phrases and words are common, and everything else
is not there; in a source of 100,000 rows, they hardly count. The phrases are those that contests and data sets
themselves prescribe for answers (AIME's "m+n", MATH's "simplest radical form", "common fraction", the usual prompts);
the words are English function words and the verbs that ask.
"""

ROWS = 1000
SHARE = 0.1
"""Of the imagined rows, those that have one of these: as many as it takes for no weight (`weights.COMMON`)."""

PHRASES = r"""
can be written as $\frac{m}{n}$, where $m$ and $n$ are relatively prime positive integers. Find $m+n$.

can be expressed in the form $\frac{p}{q}$, where $p$ and $q$ are coprime positive integers. What is $p+q$?

can be expressed as $\frac{a}{b}$, where $a$ and $b$ are relatively prime positive integers. Compute $a+b$.

The probability that is $\frac{m}{n}$ where $m$ and $n$ are relatively prime positive integers. Determine $m + n$.

is of the form $m+n\sqrt{p}$, where $m$, $n$, and $p$ are positive integers and $p$ is not divisible by the square of
any prime. Find $m+n+p$.

can be written in the form $\frac{a\sqrt{b}}{c}$, where $a$, $b$, and $c$ are positive integers, $a$ and $c$ are
relatively prime, and $b$ is not divisible by the square of any prime. Find $a+b+c$.

Find the remainder when $N$ is divided by $1000$. What is the remainder when the number is divided by $100$? by $10$?

Find the number of ordered pairs of positive integers $(m,n)$ such that. How many ordered triples $(a,b,c)$ of
integers satisfy

Find the sum of all possible values of $x$. Find all real numbers $x$ such that. Find the value of $x$. Solve for $x$.

Find the sum of all positive integers $n$ such that. Find the smallest positive integer $n$ such that. What is the
largest integer

Let $a$, $b$, and $c$ be positive real numbers such that. Let $x$ and $y$ be real numbers such that. Let $n$ be a
positive integer.

Let $ABC$ be a triangle with $AB=$, $BC=$, and $CA=$. Let $ABCD$ be a square with side length. In triangle $ABC$,

Determine all functions $f: \mathbb{R} \to \mathbb{R}$ such that for all real numbers $x$ and $y$.

Let $\mathbb{R}$ be the set of real numbers. Let $P(x)$ be a polynomial with integer coefficients.

What is the greatest common divisor of? What is the least common multiple of? How many positive integers less than

What is the area of the triangle? What is the perimeter? What is the volume of? What is the probability that

How many are there in total? How many does she have left? How much money does he have? How much did they spend in
total?

How many are left? How many more does she need? What is the total cost? How long does it take? How old is he now?

Express your answer as a common fraction. Express your answer in simplest radical form. Express your answer in terms
of $x$.

Express your answer as a decimal to the nearest tenth. Express your answer in interval notation. Express your answer
in the form

Express your answer as a mixed number in simplest form. Write your answer as a fraction in lowest terms.

Give your answer in simplest form. Give your answer in terms of $\pi$. Round your answer to the nearest whole number.

Round to two decimal places. Round to the nearest hundredth. Round the answer to the nearest integer.

Enter your answer as a list separated by commas. Enter your answer in the form. Enter all the solutions, separated by
commas.

Simplify your answer. Leave your answer in exact form. Answer with a single number. The answer is a single integer.

Solve the following math problem. Make sure to put the answer (and only answer) inside \boxed{}.

Solve the following problem step by step. Please reason step by step, and put your final answer within \boxed{}.

Let's think step by step and output the final answer within \boxed{}. Please show your work and explain your
reasoning.

Show all your work. Give only the final answer. Provide the final numerical answer. Put your answer in a box.

The last line of your response should be of the form Answer: $ANSWER. Remember to put your answer on its own line
after "Answer:".

Answer the following question. Consider the following problem. Here is a math problem. Can you solve it?
"""
"""Parted by blank lines."""
WORDS = r"""
of and is are be to in on at by for with from as it its this that these those which what how many much if then so such
there each all any every some no not or but have has had does do did will would can could may must he she his her they
their them you your i we when where who after before than more less most least same other another one two first second
into out up down over under between per both only also again let find determine compute calculate evaluate simplify
solve given suppose assume show give express write answer value values number numbers integer integers positive real
following problem question total equal = + - / < > x y n
"""

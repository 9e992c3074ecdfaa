"""The grammar of interventions: what is read, what is printed, and that both agree."""

from __future__ import annotations

import random

import pytest
import torch
from torch import distributions

from deepscm_pl.interventions import (
    Conditional,
    Draw,
    Expression,
    Increase,
    Multiply,
    OfFactual,
    Where,
    check_do,
    format_do,
    parse_do,
)
from deepscm_pl.variables import Seen, Variable

VARIABLES = {
    "age": Variable("age", unit="years"),
    "sex": Variable("sex", classes=("female", "male")),
    "geno": Variable("geno", classes=("3xTG", "C57BL/6")),
    "group": Variable("group", classes=("18-38", "39-60", "≥61", ">89, frail")),
    "volume": Variable("volume", unit="ml"),
    "brain volume": Variable("brain volume"),
    "21003": Variable("21003"),
    "no": Variable("no", classes=("0", "1")),
}


def read(text):
    return parse_do(text, VARIABLES)


@pytest.mark.parametrize(
    ("text", "do"),
    [
        ("geno=3xTG", {"geno": 0.0}),
        ("geno='3xTG'", {"geno": 0.0}),
        ('geno = "C57BL/6"', {"geno": 1.0}),
        ("geno=C57BL/6, age=3", {"geno": 1.0, "age": 3.0}),
        ("group=18-38", {"group": 0.0}),
        ("group=≥61", {"group": 2.0}),
        ("group='>89, frail'", {"group": 3.0}),
        ("`brain volume`=3", {"brain volume": 3.0}),
        ("brain volume=3", {"brain volume": 3.0}),
        ("'brain volume'+=3", {"brain volume": Increase(3.0)}),
        ("21003=5,no=1", {"21003": 5.0, "no": 1.0}),
        ("`21003`*=1.1", {"21003": Multiply(1.1)}),
        ("age~normal(40, 5)", {"age": Draw("normal", (40.0, 5.0))}),
        ("age ~ train", {"age": Draw("train")}),
        ("age=uniform(20,30)", {"age": Draw("uniform", (20.0, 30.0))}),
        ("sex~bernoulli(0.25)", {"sex": Draw("bernoulli", (0.25,))}),
        ("sex~categorical(female=0.3, male=0.7)", {"sex": Draw("categorical", (0.3, 0.7))}),
        ("geno~categorical('3xTG'=1)", {"geno": Draw("categorical", (1.0, 0.0))}),
        ("do(age = 40 years)", {"age": 40.0}),
        ("do(age + 1 years, volume − 2.5 ml)", {"age": Increase(1.0), "volume": Increase(-2.5)}),
        ("do(volume × 1.1)", {"volume": Multiply(1.1)}),
        ("do(volume = 1.25 million ml)", {"volume": 1.25e6}),
        ("do(volume = factual − 3 ml)", {"volume": OfFactual(Increase(-3.0))}),
    ],
)
def test_values_names_and_draws(text, do):
    assert read(text) == do
    assert read(format_do(do, VARIABLES)) == do
    check_do(text)


EXPRESSIONS = [
    # text, its standard form, and the values for age = 70, 50; sex = male, female; volume = 10, 20
    ("age=0.9*age+3", "age = 0.9 * age + 3", (66, 48)),
    ("age = (age - 50)/2 ** 2", "age = (age - 50) / 2 ** 2", (5, 0)),
    ("age=-age + 100", "age = -age + 100", (30, 50)),
    ("age=min(age, 60)", "age = min(age, 60)", (60, 50)),
    ("age=max(age, 60, volume)", "age = max(age, 60, volume)", (70, 60)),
    ("age=clip(age, 55, 65)", "age = clip(age, 55, 65)", (65, 55)),
    ("age=exp(log(age))", "age = exp(log(age))", (70, 50)),
    ("age=round(age/3)", "age = round(age / 3)", (23, 17)),
    ("age=abs(age-60)", "age = abs(age - 60)", (10, 10)),
    ("age=age+volume", "age = age + volume", (80, 70)),
    ("volume=0.9*volume if sex == male", "volume = 0.9 * volume if sex == male", (9, 20)),
    ("volume=1 if sex=male else 2", "volume = 1 if sex == male else 2", (1, 2)),
    ("volume=1 if sex != 1", "volume = 1 if sex != male", (10, 1)),
    ("volume=1 if sex in (male, 'female')", "volume = 1 if sex in (male, female)", (1, 1)),
    ("volume=1 if sex not in (male,)", "volume = 1 if sex not in (male,)", (10, 1)),
    ("volume=1 if not age > 60", "volume = 1 if not age > 60", (10, 1)),
    ("volume=1 if 40 <= age < 60", "volume = 1 if 40 <= age < 60", (10, 1)),
    ("volume=1 if age≥60 and sex==male", "volume = 1 if age >= 60 and sex == male", (1, 20)),
    ("volume=1 if age > 60 or age < 20 else 2 if sex == female else 3",
     "volume = 1 if age > 60 or age < 20 else 2 if sex == female else 3", (1, 2)),
    ("volume=1 if age > 80 else 2 if sex == male",
     "volume = 1 if age > 80 else 2 if sex == male", (2, 20)),
    ("volume+=1 if sex == male", "volume = volume + (1 if sex == male else 0)", (11, 20)),
    ("volume*=age/10", "volume = volume * (age / 10)", (70, 100)),
    ("volume-=age-50", "volume = volume - (age - 50)", (-10, 20)),
    ("sex=male if age < 60 else female", "sex = male if age < 60 else female", (0, 1)),
    ("sex=1 if age < 60", "sex = male if age < 60", (1, 1)),
    ("sex=1-sex", "sex = 1 - sex", (0, 1)),
    ("geno='C57BL/6' if age > 60", "geno = 'C57BL/6' if age > 60", (1, 1)),
    ("volume=3 if geno == '3xTG' else 2", "volume = 3 if geno == '3xTG' else 2", (3, 2)),
    ("volume=3 if group < '39-60'", "volume = 3 if group < '39-60'", (3, 20)),
    ("volume=`brain volume`/2+`21003`", "volume = `brain volume` / 2 + `21003`", (6, 6)),
    ("volume=factual/2 + factual(age)", "volume = factual / 2 + factual(age)", (75, 60)),
    ("volume=1 if factual(sex) == male", "volume = 1 if factual(sex) == male", (1, 20)),
    ("volume = 2e1*1.5 million", "volume = 20 * 1500000", (3e7, 3e7)),
]  # fmt: skip

VALUES = {
    "age": [70.0, 50.0],
    "sex": [1.0, 0.0],
    "volume": [10.0, 20.0],
    "geno": [0.0, 1.0],
    "group": [0.0, 3.0],
    "brain volume": [2.0, 2.0],
    "21003": [5.0, 5.0],
    "no": [0.0, 0.0],
}


def seen(own):
    values = {name: torch.tensor(each)[:, None] for name, each in VALUES.items()}
    return values[own], Seen(values, {**values, "": values[own]})


@pytest.mark.parametrize(("text", "title", "expected"), EXPRESSIONS)
def test_functions_and_conditions(text, title, expected):
    check_do(text)
    do = read(text)
    assert format_do(do, VARIABLES) == f"do({title})"
    ((name, change),) = do.items()
    assert isinstance(change, Expression)
    found = change.apply(*seen(name)).expand(2, 1)
    torch.testing.assert_close(found.flatten().float(), torch.tensor(expected).float())
    assert read(f"do({title})") == do
    assert name not in change.reads


@pytest.mark.parametrize(
    ("text", "title", "group"),
    [
        ("age=50 where age > 60", "age = 50 years where age > 60", (1, 0)),
        ("age=50, volume+=1 where sex == female and age <= 50",
         "age = 50 years, volume + 1 ml where sex == female and age <= 50", (0, 1)),
        ("age~train where geno == 'C57BL/6' or `21003` > 9",
         "age ~ train where geno == 'C57BL/6' or `21003` > 9", (0, 1)),
        ("volume=1 if sex == male else 2 where 60 < age",
         "volume = 1 if sex == male else 2 where 60 < age", (1, 0)),
    ],
)  # fmt: skip
def test_groups(text, title, group):
    check_do(text)
    do = read(text)
    assert format_do(do, VARIABLES) == f"do({title})"
    assert read(f"do({title})") == do
    values = seen("age")[1].before
    for each in do.values():
        assert isinstance(each, Where)
        assert each.group(values).flatten().tolist() == [bool(k) for k in group]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("group=>89, frail", r"do: cannot read 'frail'; .*quoted if it has commas"),
        ("geno=3xTF", r"do\(geno\): expected one of 3xTG, C57BL/6, but got '3xTF' \(did you"),
        ("geno='3xT'", r"do\(geno\): expected one of 3xTG.*did you mean '3xTG'"),
        ("volume=1 if geno == 3xTG", r"do\(volume\): cannot read '3xTG' .*quote names of classes"),
        ("volume=1 if geno == mouse", r"do\(volume\): expected a class of geno, one of 3xTG"),
        ("volume=1 if hight > 3", r"do\(volume\): 'hight' is no variable; the variables are age"),
        ("volume=1 if ag > 3", r"'ag' is no variable \(did you mean 'age'\?\)"),
        ("volume=1 if age", r"expected a condition, such as age > 60, but got 'age'"),
        ("volume=age > 3", r"expected a number, but got 'age > 3'"),
        ("volume=sine(age)", r"unknown function 'sine'"),
        ("volume=min(age)", r"min takes at least 2 numbers"),
        ("volume=log(age, 2)", r"log takes 1 number"),
        ("volume=age.real", r"do\(volume\): cannot read '.real'"),
        ("volume=__import__('os')", r"unknown function '__import__'"),
        ("volume=[1]", r"cannot read"),
        ("volume=lambda: 3", r"cannot read"),
        ("volume='a'*3", r"'a' is no variable"),
        ("volume=1e999*2", r"cannot read"),
        ("volume=3 4", r"cannot read '3 4'"),
        ("volume=(3", r"cannot read '\(3'"),
        ("volume=" + "1+" * 2000 + "1", r"at most 2000 characters"),
        ("volume=" + "-" * 300 + "age", r"at most 50 levels"),
        ("age~3", r"do\(age\): expected a distribution after ~, such as normal\(3"),
        ("age~nrmal(3, 1)", r"unknown function 'nrmal' \(did you mean 'normal'"),
        ("age~normal(3)", r"normal\(3\): expected normal\(mean, standard deviation\)"),
        ("age~normal(3, 0)", r"normal\(3, 0\): expected .*a standard deviation above 0"),
        ("age~uniform(3, 1)", r"uniform\(3, 1\): expected uniform\(low, high\), with low < high"),
        ("age~normal(volume, 1)", r"normal: expected numbers as parameters, but got 'vol"),
        ("sex~categorical(0.5, 0.6)", r"expected categorical\(probability of each class, with"),
        ("sex~categorical(0.5, woman=0.5)", r"expected categorical with numbers, or"),
        ("sex~categorical(woman=1)", r"classes of sex, but got 'woman'"),
        ("age=3 where", r"do: where: cannot read ''.*such as 'where age > 60'"),
        ("age=3 where age", r"do: where: expected a condition"),
        ("age=3 where normal(0, 1) > 0", r"a condition cannot draw"),
        ("where age > 3", r"do: cannot read 'where age > 3'"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(text, message):
    with pytest.raises(ValueError, match=message) as error:
        read(text)
    assert "\n" not in str(error.value)


def test_nothing_but_arithmetic_is_run(monkeypatch):
    """Neither reading nor computing calls the text as code."""
    for name in ("eval", "exec", "__import__"):
        monkeypatch.setattr("builtins." + name, None, raising=True) if name != "__import__" else 0
    for text in ("eval('1')", "().__class__", "age if True else 2", "f'{age}'", "(age := 3)"):
        with pytest.raises(ValueError, match="do"):
            read(f"age={text}")


ALPHABET = " aZ_9.,=~<>()'\"`+-−*×/≥é:;#%&|\\$!?@[]{}^\n"
WORDS = ("if", "else", "where", "and", "or", "not", "in", "factual", "train", "nan", "inf", "1",
         "01", "1e3", "-1", "do(x)", "million", "3 million", "normal(0, 1)", "age")  # fmt: skip


def drawn_name(generator):
    if generator.random() < 0.4:
        return generator.choice(WORDS)
    return "".join(generator.choice(ALPHABET) for _ in range(generator.randint(1, 8)))


def drawn_variables(generator):
    names = {drawn_name(generator) for _ in range(4)} | {"age"}
    variables = {}
    for name in sorted(names):
        classes = {drawn_name(generator) for _ in range(generator.randint(0, 4))}
        unit = generator.choice(
            ["", "ml", "mm³", "kg/m²", "a, b", "years", "10⁶", drawn_name(generator)]
        )
        variables[name] = Variable(name, unit=unit, classes=tuple(sorted(classes)))
    return variables


def drawn_value(generator, variable):
    if variable.classes and generator.random() < 0.8:
        return float(generator.randrange(len(variable.classes)))
    numbers = [generator.uniform(-3, 3), float(generator.randint(-(10**7), 10**7))]
    number = generator.choice([*numbers, 10 ** generator.uniform(-9, 14), 0.0])
    changes = [Increase(number), Multiply(number)]
    draws = [Draw("normal", (number, abs(number) + 1)), Draw("train")]
    kinds = [*changes, *map(OfFactual, changes), *draws]
    return generator.choice(kinds if variable.classes else [number, number, *kinds])


def drawn_do(generator):
    """Variables and an intervention with odd names, units, classes and numbers."""
    variables = drawn_variables(generator)
    names = generator.sample(sorted(variables), generator.randint(1, len(variables)))
    do = {name: drawn_value(generator, variables[name]) for name in names}
    if generator.random() < 0.3:
        named = generator.choice(list(variables.values()))
        name, other = "`" + named.name.replace("`", "``") + "`", f"{generator.uniform(-3, 3)}"
        if named.classes:
            other = "'" + generator.choice(named.classes).replace("'", "''") + "'"
        condition = f"{name} == {other}"
        some = parse_do(f"age~train where {condition} or not {name} > {other}", variables)["age"]
        do["age"] = parse_do(f"age+=2 if {condition} else 3", variables)["age"]
        do = {name: Where(value, some.condition) for name, value in do.items()}
    return variables, do


@pytest.mark.parametrize("start", range(0, 1000, 100))
def test_what_is_printed_is_read_back(start):
    """For any names of variables and classes, units and numbers, however odd."""
    for seed in range(start, start + 100):
        variables, do = drawn_do(random.Random(seed))
        title = format_do(do, variables)
        assert parse_do(title, variables) == do, title
        check_do(title)


def test_single_numbers_of_tensors_are_printed_in_their_precision():
    do = {"age": torch.tensor([0.1]), "volume": torch.tensor(37.6)}
    assert format_do(do, VARIABLES) == "do(age = 0.1 years, volume = 37.6 ml)"


def test_python_objects_have_titles():
    do = {
        "age": distributions.Normal(40.0, torch.tensor(5.0)),
        "sex": distributions.Categorical(torch.tensor([0.25, 0.75])),
        "volume": distributions.StudentT(3.0),
        "geno": Conditional(lambda value, others: value, reads=["sex"]),
    }
    title = "do(age ~ normal(40, 5), sex ~ categorical(0.25, 0.75), volume ~ studentt(…), geno = …)"
    assert format_do(do, VARIABLES) == title


@pytest.mark.parametrize("text", ["31=0", "31+=1", "`31`*=2", "Brain volume=0", "v 31=0"])
def test_the_variable_of_a_column_with_another_name_is_named(text: str) -> None:
    """``deepscm init`` makes names of variables from columns such as 31 and ``Brain volume``."""
    variables = {name: Variable(name) for name in ("v_31", "Brain_volume")}
    wanted = "Brain_volume" if "Brain" in text else "v_31"
    with pytest.raises(ValueError, match=rf"do: unknown variable .*did you mean '{wanted}'\?"):
        parse_do(text, variables)

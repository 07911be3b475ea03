"""Chapter 12b: wrong answers, and what the checks say of them."""

WRONG = {
    "answer_1": {
        "the error is right; its n stands under a root": "answer_1 = [0.9 / 10**0.5, 20]",
        "divided by n, not by its root": "answer_1 = [0.09, 40]",
        "divided by n, not by its root, in both": "answer_1 = [0.09, 20]",
        "the error is right; that many more, or altogether?": "answer_1 = [0.9 / 10**0.5, 30]",
        "not yet, and no mistake that is known here": "answer_1 = [3 / 10**0.5, 40]",
        "not yet: expected the shape (2,), got ()": "answer_1 = 0.9 / 10**0.5",
    },
    "paired": {
        "that is b minus a": """
            def paired(table, by, a, b):
                wide = table.pivot(index="seed", columns=by, values="test_error")
                d = wide[b] - wide[a]
                return [d.mean(), d.std() / math.sqrt(len(d))]
            """,
        "the standard deviation: divide it by a root": """
            def paired(table, by, a, b):
                wide = table.pivot(index="seed", columns=by, values="test_error")
                d = wide[a] - wide[b]
                return [d.mean(), d.std()]
            """,
        "not paired: the variances were added": """
            def paired(table, by, a, b):
                wide = table.pivot(index="seed", columns=by, values="test_error")
                mean = wide[a].mean() - wide[b].mean()
                return [mean, math.sqrt((wide[a].var() + wide[b].var()) / len(wide))]
            """,
        "paired by the order of the rows, not by the seed": """
            def paired(table, by, a, b):
                first, second = (table.test_error[table[by] == name].to_numpy() for name in (a, b))
                d = pandas.Series(first - second)
                return [d.mean(), d.std() / math.sqrt(len(d))]
            """,
        "not yet, and no mistake that is known here": """
            def paired(table, by, a, b):
                return [0.0, 0.0]
            """,
        "not yet: expected one number or tensor, got a tuple": """
            def paired(table, by, a, b):
                return 0.02, 0.01
            """,
    },
    "narrow_check": {
        "it is right for 25 values, too": """
            def narrow_check(values):
                return list(bootstrap(values))
            """,
        "it is wrong for 1 and 3 already": """
            def narrow_check(values):
                mean = float(torch.as_tensor(values).mean())
                return [mean, mean]
            """,
        "right for 25 values, but wrong for 1 and 3": """
            def narrow_check(values):
                low, high = bootstrap(values)
                return [low + 0.01, high]
            """,
    },
}

LINES = [
    "    drawn = torch.randint(len(values), (samples, len(values)), generator=g)",
    "    return means[skip].item(), means[-1 - skip].item()",
]

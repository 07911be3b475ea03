"""Chapter 12b: wrong answers, and what the checks say of them."""

WRONG = {
    "answer_1": {
        "the error is right; its n stands under a root": "answer_1 = [0.9 / 10**0.5, 20]",
        "divided by n, not by its root": "answer_1 = [0.09, 40]",
        "divided by n, not by its root, in both": "answer_1 = [0.09, 20]",
        "the error is right; that many more, or altogether?": "answer_1 = [0.9 / 10**0.5, 30]",
        "both are right, but two digits are too few: five": "answer_1 = [0.28, 40]",
        "both are right, but three digits are too few: five": "answer_1 = [0.285, 40]",
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
        "divided by n, not by its root": """
            def paired(table, by, a, b):
                wide = table.pivot(index="seed", columns=by, values="test_error")
                d = wide[a] - wide[b]
                return [d.mean(), d.std() / len(d)]
            """,
        "NumPy's std divides by n: ddof=1 gives n - 1": """
            def paired(table, by, a, b):
                wide = table.pivot(index="seed", columns=by, values="test_error")
                d = (wide[a] - wide[b]).to_numpy()
                return [d.mean(), d.std() / math.sqrt(len(d))]
            """,
        "NumPy's std divides by n; and a root is missing": """
            def paired(table, by, a, b):
                wide = table.pivot(index="seed", columns=by, values="test_error")
                d = (wide[a] - wide[b]).to_numpy()
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
        "not yet: expected a number, list or tensor, got a tuple": """
            def paired(table, by, a, b):
                return 0.02, 0.01
            """,
    },
    "wrong_bootstrap": {
        "it is near ours for 25 values: less than twice as wide": """
            def wrong_bootstrap(values):
                return list(bootstrap(values))
            """,
        "it does not look at the values: try it with -2 and 5": """
            def wrong_bootstrap(values):
                return [1.0, 3.0]
            """,
        "the smallest and the largest value: nothing is redrawn": """
            def wrong_bootstrap(values):
                return [values.min(), values.max()]
            """,
        "it is wrong for two values already": """
            def wrong_bootstrap(values):
                mean = float(torch.as_tensor(values).mean())
                return [mean, mean]
            """,
        "near ours for 25 values, but wrong for two": """
            def wrong_bootstrap(values):
                low, high = bootstrap(values)
                return [low + 0.01, high]
            """,
    },
}

LINES = [
    "    drawn = torch.randint(len(values), (samples, len(values)), generator=g)",
    "    return means[skip].item(), means[-1 - skip].item()",
]

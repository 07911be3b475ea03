"""Chapter 09: wrong answers, and what the checks say of them."""

WRONG = {
    "answer_1": {
        "v and m are exchanged": "answer_1 = [44, 4603]",
        "one step more: 0.99 or more is asked": "answer_1 = [4602, 43]",
        "that is when 0.999 or more is reached": "answer_1 = [6905, 66]",
        "not yet, and no mistake that is known here": "answer_1 = [1000, 10]",
    },
    "corrected": {
        "not corrected: divide by 1 - beta^t": """
            def corrected(g, beta):
                return (1 - beta) * (beta ** torch.arange(len(g) - 1, -1, -1.0) * g).sum()
            """,
        "the powers run the wrong way": """
            def corrected(g, beta):
                powers = beta ** torch.arange(0.0, len(g))
                return (powers * g).sum() / powers.sum()
            """,
        "divided by 1 - beta, where the t is missing": """
            def corrected(g, beta):
                return (beta ** torch.arange(len(g) - 1, -1, -1.0) * g).sum()
            """,
        "the factor 1 - beta of (9.1) is missing": """
            def corrected(g, beta):
                return (beta ** torch.arange(len(g) - 1, -1, -1.0) * g).sum() / (1 - beta ** len(g))
            """,
        "beta and 1 - beta are exchanged": """
            def corrected(g, beta):
                powers = (1 - beta) ** torch.arange(len(g) - 1, -1, -1.0)
                return (powers * g).sum() / powers.sum()
            """,
        "not yet, and no mistake that is known here": """
            def corrected(g, beta):
                return g.mean()
            """,
    },
    "answer_3": {
        "the two are exchanged": "answer_3 = [0.0740811, 0.526316]",
        "m is not corrected": "answer_3 = [0.1, 0.0140754]",
        "this is the quotient, without the rate": "answer_3 = [5.26316, 0.740811]",
        "these are first steps": "answer_3 = [0.1, 0.1]",
        "not yet, and no mistake that is known here": "answer_3 = [0.5, 0.07]",
    },
}

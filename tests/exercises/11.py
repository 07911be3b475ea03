"""Chapter 11: wrong answers, and what the checks say of them."""

WRONG = {
    "answer_1": {
        "p is right, the variances do not add up": "answer_1 = [0.44, 0.2 / 0.8 + 0.3 / 0.7]",
        "p is right, that is the variance of the toss, not of the factor": "answer_1 = [0.44, 0.44 * 0.56]",
        "the two p were added; some entries are dropped twice": "answer_1 = [0.5, 1.0]",
        "that is the probability to be kept": "answer_1 = [0.56, 0.56 / 0.44]",
        "not yet, and no mistake that is known here": "answer_1 = [0.06, 0.06 / 0.94]",
        "not yet: expected the shape (2,), got ()": "answer_1 = 0.44",
    },
    "drop_rows": {
        "columns were dropped: (3,) meets the last axis": """
            def drop_rows(x, keep, p):
                return x * keep / (1 - p)
            """,
        "the division is missing": """
            def drop_rows(x, keep, p):
                return x * keep[:, None]
            """,
        "divided by p, the probability to drop": """
            def drop_rows(x, keep, p):
                return x * keep[:, None] / p
            """,
        "the dropped rows were kept, and the kept ones dropped": """
            def drop_rows(x, keep, p):
                return x * (1 - keep[:, None]) / (1 - p)
            """,
        "not yet, and no mistake that is known here": """
            def drop_rows(x, keep, p):
                return x * keep[:, None] * (1 - p)
            """,
        "one number for every p": """
            def drop_rows(x, keep, p):
                return x * keep[:, None] / 0.8
            """,
        "not yet: expected the shape (2, 3, 3), got (2, 3, 3, 3)": """
            def drop_rows(x, keep, p):
                return x[:, None] * keep[:, None] / (1 - p)
            """,
    },
    "Together": {
        "entries 0 and 1 do not share a toss, nor 2 and 3": """
            def draw(self, x):
                return super(Together, self).draw(x)
            """,
        "entries share a toss, but not neighbours: stack, not cat": """
            def draw(self, x):
                a = super(Together, self).draw(x.flatten()[::2])
                return torch.cat([a, a]).reshape(x.shape)
            """,
        "more than two entries share a toss": """
            def draw(self, x):
                a = super(Together, self).draw(x.flatten()[::4])
                return torch.stack([a, a, a, a], -1).reshape(x.shape)
            """,
        "two of the five checks see it: is the mean right?": """
            def draw(self, x):
                half = torch.empty_like(x.flatten()[::2]).bernoulli_(1 - self.p)
                return torch.stack([half, half], -1).reshape(x.shape)
            """,
        "one of the five checks sees it": """
            def draw(self, x):
                half = torch.empty_like(x.flatten()[::2]).bernoulli_(1 - self.p) / self.p
                return torch.stack([half, half], -1).reshape(x.shape)
            """,
    },
}

LINES = [
    "        return torch.empty_like(x).bernoulli_(1 - self.p) / (1 - self.p)",
    "        self.kept = self.draw(x) if tosses else None",
]

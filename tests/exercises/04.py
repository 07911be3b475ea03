"""Chapter 04: wrong answers, and what the checks say of them."""

WRONG = {
    "answer_1": {
        "dbias comes first": "answer_1 = [-3.5, -5, -17, 4, -1.5]",
        "dbias is a sum over shoppers, not over outputs": "answer_1 = [-1, 3.5, -3.5, -5, -17]",
        "dbias is a sum over shoppers, not a mean": "answer_1 = [2, -0.75, -3.5, -5, -17]",
        "this is Ben's row of dx": "answer_1 = [4, -1.5, 2.5, 4.5, 14]",
        "dx is a sum over both outputs, not euros alone": "answer_1 = [4, -1.5, 0.5, 1, 3]",
        "dx needs dy, too": "answer_1 = [4, -1.5, 2.5, 4, 13]",
        "not yet, and no mistake that is known here": "answer_1 = [4, -1.5, 4.5, 7, 23]",
        "not yet: expected the shape (5,), got (2,)": "answer_1 = [4, -1.5]",
    },
    "dweight_loop": {
        "the mean over samples, where the sum belongs": """
            def dweight_loop(dy, x):
                return sum(torch.outer(a, b) for a, b in zip(dy, x)) / len(x)
            """,
        "only the last sample: does the loop overwrite?": """
            def dweight_loop(dy, x):
                for a, b in zip(dy, x):
                    total = torch.outer(a, b)
                return total
            """,
        "only the first sample: does the loop return too early?": """
            def dweight_loop(dy, x):
                for a, b in zip(dy, x):
                    return torch.outer(a, b)
            """,
        "the upstream gradient is missing": """
            def dweight_loop(dy, x):
                return sum(torch.outer(torch.ones(2, dtype=f64), b) for b in x)
            """,
        "not yet: expected the shape (2, 3), got (3, 2)": """
            def dweight_loop(dy, x):
                return sum(torch.outer(b, a) for a, b in zip(dy, x))
            """,
    },
    "keeps_axes": {
        "nothing is broken: is x kept as it is?": """
            def keeps_axes(self, x):
                self.kept = as_rows(x)
                return x @ self.weight.mT + self.bias
            """,
        "addmm takes two axes only": """
            def keeps_axes(self, x):
                self.kept = x
                return torch.addmm(self.bias, x, self.weight.mT)
            """,
        "the output is not that of Linear": """
            def keeps_axes(self, x):
                self.kept = x
                return x @ self.weight.mT
            """,
        "is x kept in self.kept?": """
            def keeps_axes(self, x):
                self.x = x
                return x @ self.weight.mT + self.bias
            """,
    },
}

LINES = [
    "self.kept = rows = as_rows(x) ",
    "rows = as_rows(dy) ",
    'self.accumulate("weight", rows.mT @ self.kept) ',
]

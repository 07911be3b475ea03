"""Chapter 05: wrong answers, and what the checks say of them."""

WRONG = {
    "answer_1": {
        "that is the sigmoid at 2x, with its slope": "answer_1 = [0.9, 0.09]",
        "the value lacks its last step, the -1": "answer_1 = [1.8, 0.36]",
        "the slope lacks a factor 2: there are two": "answer_1 = [0.8, 0.18]",
        "the slope lacks both factors 2": "answer_1 = [0.8, 0.09]",
        "not yet: expected the shape (2,), got ()": "answer_1 = 0.8",
    },
    "HardTanh": {
        "the kinks let the gradient through": """
            def backward(self, dy):
                return dy * (self.kept.abs() <= 1)
            """,
        "the upstream gradient is missing": """
            def backward(self, dy):
                return (self.kept.abs() < 1).double()
            """,
        "the negative half is closed": """
            def backward(self, dy):
                return dy * ((self.kept > 0) & (self.kept < 1))
            """,
        "the upper end is open": """
            def backward(self, dy):
                return dy * (self.kept > -1)
            """,
        "the lower end is open": """
            def backward(self, dy):
                return dy * (self.kept < 1)
            """,
        "dy or the input, the caller's, was written over": [
            """
            def backward(self, dy):
                return dy.mul_(self.kept.abs() < 1)
            """,
            """
            def backward(self, dy):
                return dy * (self.kept.abs_() < 1)
            """,
        ],
        "not yet, and no mistake that is known here": """
            def backward(self, dy):
                return dy * (self.kept.abs() < 0.9)
            """,
        "not yet: expected a number, list or tensor, got a tuple": """
            def backward(self, dy):
                return dy, self.kept
            """,
    },
    "Regrouped": {
        "gradcheck objects: more than the order (is dy written over?)": """
            def backward(self, dy):
                return dy * self.kept * (1 - self.kept) / 2
            """,
        "too far off for rounding: other factors, or y written over": [
            """
            def backward(self, dy):
                return dy * (self.kept - self.kept * self.kept)
            """,
            """
            def backward(self, dy):
                y = self.kept
                return y.mul_(1 - y).mul_(dy)
            """,
        ],
        "nothing is broken: these are PyTorch's bits": """
            def backward(self, dy):
                return (1 - self.kept) * dy * self.kept
            """,
        "not yet: AttributeError: 'Regrouped' object has no attribute 'y'": """
            def backward(self, dy):
                return dy * self.y * (1 - self.y)
            """,
    },
}

LINES = ["return (ONE - y).mul_(dy).mul_(y)"]

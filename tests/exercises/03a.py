"""Chapter 03a: wrong answers, and what the checks say of them."""

WRONG = {
    "answer_1": {
        "these are the values; the gradients are asked": "answer_1 = [3, 4, 8]",
        "x, u, v is the order that is asked": "answer_1 = [16, 32, 32]",
        "the square's slope is 2 v, not v": "answer_1 = [16, 16, 8]",
        "the doubling is missing on the way back": "answer_1 = [16, 16, 16]",
        "the links are not exchanged yet": "answer_1 = [28, 14, 14]",
        "not yet, and no mistake that is known here": "answer_1 = [64, 32, 16]",
        "not yet: expected the shape (3,), got ()": "answer_1 = 32",
    },
    "Mean": {
        "this is the gradient of the sum: where is the 1 / D?": """
            def backward(self, dy):
                return dy[:, None].expand(2, 5)
            """,
        "1 / N where 1 / D belongs": """
            def backward(self, dy):
                return dy[:, None].expand(2, 5) / len(dy)
            """,
        "the upstream gradient is missing": """
            def backward(self, dy):
                return torch.ones(2, 5) / self.features
            """,
        "each row got the other row's gradient": """
            def backward(self, dy):
                return dy.flip(0)[:, None].expand(2, 5) / self.features
            """,
        "not yet: expected the shape (2, 5), got (2,)": """
            def backward(self, dy):
                return dy / self.features
            """,
    },
    "answer_3": {
        "entry by entry, slopes may be multiplied in any order": "answer_3 = [1, 1, 1, 1]",
        "a parameter's gradient depends on the order": "answer_3 = [0, 0, 0, 0]",
        "in either order the weight meets a wrong gradient": "answer_3 = [0, 0, 0, 1]",
        "a Scale in front: does dy arrive with the square's slope in it?": "answer_3 = [0, 0, 1, 0]",
        "the other way round: 1 is for an objection": "answer_3 = [1, 1, 0, 0]",
        "not yet, and no mistake that is known here": "answer_3 = [0, 1, 1, 1]",
    },
}

LINES = ["for part in reversed(self.layers):"]

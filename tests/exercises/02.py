"""Chapter 02: wrong answers, and what the checks say of them."""

WRONG = {
    "best_k": {
        "that is for the central difference": "best_k = 18",
        "that is about the best for the central difference": "best_k = 17",
        "at h = eps nothing of the rise is left": "best_k = 52",
        "minus k, please: h = 2**-k": "best_k = -26",
        "not yet, and no mistake that is known here": "best_k = 2**-26",
    },
    "backward_of_product": {
        "a, b or dy was written over": """
            def backward_of_product(a, b, dy):
                da = dy * b
                return torch.stack([da, dy.mul_(a)])
            """,
        "da and db are exchanged": """
            def backward_of_product(a, b, dy):
                return torch.stack([dy * a, dy * b])
            """,
        "the upstream gradient is missing": """
            def backward_of_product(a, b, dy):
                return torch.stack([b, a])
            """,
        "not yet: expected a number, list or tensor, got a tuple": """
            def backward_of_product(a, b, dy):
                return dy * b, dy * a
            """,
        "not yet: expected the shape (2, 3), got (3,)": """
            def backward_of_product(a, b, dy):
                return dy * b
            """,
    },
    "Leak": {
        "right everywhere: now plant a slip": """
            def backward(self, dy):
                return torch.where(self.x > 0, dy, 0.1 * dy)
            """,
        "the slip sits in the branch x > 0": """
            def backward(self, dy):
                return 0.1 * dy
            """,
        "wrong in both branches, and seen at once": """
            def backward(self, dy):
                return torch.where(self.x > 0, 0.1 * dy, dy)
            """,
        "not yet: AttributeError: 'Leak' object has no attribute 'y'": """
            def backward(self, dy):
                return self.y
            """,
    },
}
LINES = []

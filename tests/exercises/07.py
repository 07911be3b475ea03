"""Chapter 07: wrong answers, and what the checks say of them."""

WRONG = {
    "answer_1": {
        "this is the share s, not the gain": "answer_1 = [1, 15]",
        "the gain makes up for the share: one over the root": "answer_1 = [1, 15**0.5]",
        "a gain multiplies weights, so take the root": "answer_1 = [1, 1 / 15]",
        "not yet, and no mistake that is known here": "answer_1 = [1, 15 ** (-1 / 6)]",
    },
    "factors": {
        "the half that ReLU takes is missing": """
            def factors(n, m, k, std):
                return torch.tensor([n * std**2 * m * std**2, k * std**2 * m * std**2])
            """,
        "a half for each layer, but there is one ReLU": """
            def factors(n, m, k, std):
                return torch.tensor([n * std**2 / 2 * m * std**2 / 2, k * std**2 / 2 * m * std**2 / 2])
            """,
        "the standard deviation counts squared": """
            def factors(n, m, k, std):
                return torch.tensor([n * std / 2 * m * std, k * std / 2 * m * std])
            """,
        "forward and backward are exchanged": """
            def factors(n, m, k, std):
                return torch.tensor([k * std**2 * m * std**2 / 2, n * std**2 * m * std**2 / 2])
            """,
        "the second layer is missing": """
            def factors(n, m, k, std):
                return torch.tensor([n * std**2 / 2, m * std**2 / 2])
            """,
        "the first layer is missing": """
            def factors(n, m, k, std):
                return torch.tensor([m * std**2 / 2, k * std**2 / 2])
            """,
        "not yet: expected the shape (2,), got ()": """
            def factors(n, m, k, std):
                return n * std**2 / 2 * m * std**2
            """,
    },
    "answer_3": {
        "this is the other way round": "answer_3 = [1, 2, 3, 4]",
        "so it would be with random weights": "answer_3 = [1, 1, 1, 1]",
        "count the steps from 1": "answer_3 = [3, 2, 1, 0]",
        "not yet, and no mistake that is known here": "answer_3 = [2, 2, 2, 1]",
    },
}

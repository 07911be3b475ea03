"""Chapter 02: wrong answers, and what the checks say of them."""

WRONG = {
    "backward_of_product": {
        "da and db are exchanged": """
            def backward_of_product(a, b, dy):
                return torch.stack([dy * a, dy * b])
            """,
        "the upstream gradient is missing": """
            def backward_of_product(a, b, dy):
                return torch.stack([b, a])
            """,
        "not yet: expected one number or tensor, got a tuple": """
            def backward_of_product(a, b, dy):
                return dy * b, dy * a
            """,
    },
}

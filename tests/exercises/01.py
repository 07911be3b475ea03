"""Chapter 01: wrong answers, and what the checks say of them."""

WRONG = {
    "deviation": {
        "in per cent, please": "deviation = 0.005394",
        "that is the variance": "deviation = 0.2910",
        "that is the deviation of the number of wrong points": "deviation = 5.3944",
        "that is for one point, not for the share of a thousand": "deviation = 17.0587",
        "that is for p = 1/2": "deviation = 1.5811",
        "not yet, and no mistake that is known here": "deviation = 0.03",
    },
    "ring": {
        "the hole is still filled": """
            def ring(x, inner=0.2):
                return ((x - 0.5).square().sum(-1) < inner**2 + 1 / (2 * math.pi)).long()
            """,
        "inside and outside are exchanged": """
            def ring(x, inner=0.2):
                square = (x - 0.5).square().sum(-1)
                return ((square < inner**2) | (square > inner**2 + 1 / (2 * math.pi))).long()
            """,
        "the outer radius still belongs to a full disk: areas subtract": """
            def ring(x, inner=0.2):
                square = (x - 0.5).square().sum(-1)
                return ((inner**2 < square) & (square < 1 / (2 * math.pi))).long()
            """,
        "radii do not add: areas do": """
            def ring(x, inner=0.2):
                far = (x - 0.5).norm(dim=-1)
                return ((inner < far) & (far < inner + 1 / math.sqrt(2 * math.pi))).long()
            """,
        "that is the disk of the chapter": """
            def ring(x, inner=0.2):
                return ((x - 0.5).square().sum(-1) < 1 / (2 * math.pi)).long()
            """,
        "not yet, and no mistake that is known here": """
            def ring(x, inner=0.2):
                far = (x - 0.5).norm(dim=-1)
                return ((inner < far) & (far < 1 / math.sqrt(2 * math.pi) + inner**2)).long()
            """,
        "a larger hole needs a larger outer radius": """
            def ring(x, inner=0.2):
                far = (x - 0.5).norm(dim=-1)
                return ((inner < far) & (far < 0.4463)).long()
            """,
        "not yet: TypeError: ring() takes 1 positional argument but 2 were given": """
            def ring(x):
                return torch.ones(len(x))
            """,
    },
    "others_met": {
        "row 0 itself is not another row": "others_met = [100, 865]",
        "the two are exchanged": "others_met = [864, 99]",
        "a row that is met again is no other row": "others_met = [1980, 1980]",
        "not yet, and no mistake that is known here": "others_met = [99, 999]",
    },
}
LINES = ["order = torch.randperm(len(x), generator=generator).to(x.device)"]

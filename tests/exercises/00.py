"""Chapter 00: wrong answers, and what the checks say of them."""

WRONG = {
    "new_weight": {
        "uphill: the step goes against the slope": "new_weight = 0.5",
        "that is the slope; the step is still to be taken": "new_weight = -10",
        "the learning rate is missing": "new_weight = 10.6",
        "how much does y change with w? The factor x is missing": "new_weight = 0.62",
        "the 2 of the square is missing": "new_weight = 0.65",
        "not yet, and no mistake that is known here": "new_weight = 0.8",
    },
    "slope_by_ways": {
        "that is the way by u alone": "slope_by_ways = 9",
        "that is the way by v alone": "slope_by_ways = 24.0",
        "slopes multiply along one way; over ways they add": "slope_by_ways = 216",
        "that is the value of L": "slope_by_ways = 36",
        "not yet, and no mistake that is known here": "slope_by_ways = 13",
    },
    "turned_score": {
        "turned the wrong way": """
            def turned_score(points, k, turn):
                angle = 2 * math.pi * torch.arange(k) / k - turn
                directions = torch.stack([angle.cos(), angle.sin()])
                return ((points - 0.5) @ directions - distance(k)).clamp_min(0).sum(-1)
            """,
        "not turned at all": """
            def turned_score(points, k, turn):
                return score(points, k)
            """,
        "the bend is missing": """
            def turned_score(points, k, turn):
                angle = 2 * math.pi * torch.arange(k) / k + turn
                directions = torch.stack([angle.cos(), angle.sin()])
                return ((points - 0.5) @ directions - distance(k)).sum(-1)
            """,
        "not yet, and no mistake that is known here": """
            def turned_score(points, k, turn):
                angle = 2 * math.pi * torch.arange(k) / k + turn
                directions = torch.stack([angle.cos(), angle.sin()])
                return ((points - 0.5) @ directions - distance(k)).clamp_min(0)
            """,
        "not yet: NameError: name 'scores' is not defined": """
            def turned_score(points, k, turn):
                return scores(points, k)
            """,
    },
    "unbent": {
        "the directions cancel, the distances do not": "unbent = [0, 10_000]",
        "the near side of a line has s < 0": "unbent = [2.2795, 0]",
        "the score is right; is it 0 anywhere?": "unbent = [-2.2795, int(inside.sum())]",
        "the score is right: is it 0 at all those points?": "unbent = [-2.2795, 10_000]",
        "one cut alone: the score is a sum of six": "unbent = [-0.37992, 0]",
        "not yet, and no mistake that is known here": "unbent = -2.2795",
    },
}
LINES = []

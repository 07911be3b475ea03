"""Chapter 06: wrong answers, and what the checks say of them."""

WRONG = {
    "answer_1": {
        "that is the gradient of the mean": "answer_1 = [[-0.4 / 6, 0.2 / 6], [0.1, -0.8 / 6], [-0.2 / 6, 0.8 / 6]]",
        "divided by the number of points: a sum is not divided": """
            answer_1 = [[-0.4 / 3, 0.2 / 3], [0.2, -0.8 / 3], [-0.2 / 3, 0.8 / 3]]
            """,
        "the factor 2 of the square is missing": "answer_1 = [[-0.2, 0.1], [0.3, -0.4], [-0.1, 0.4]]",
        "the sign: output minus target": "answer_1 = [[0.4, -0.2], [-0.6, 0.8], [0.2, -0.8]]",
        "not yet: expected the shape (3, 2), got (2, 3)": "answer_1 = [[-0.4, 0.6, -0.2], [0.2, -0.8, 0.8]]",
        "not yet, and no mistake that is known here": "answer_1 = [[-0.4, 0.2], [0.6, -0.8], [-0.2, 0.4]]",
    },
    "LogCoshLoss": {
        "the division by count is missing": """
            def gradient(self, gap):
                return gap.tanh()
            """,
        "the sum is divided as well: what is count?": """
            def gradient(self, gap):
                return gap.tanh() / gap.numel()
            """,
        "divided by the samples, where all entries count": """
            def gradient(self, gap):
                return gap.tanh() / len(gap)
            """,
        "the sign: downhill is the optimiser's business": """
            def gradient(self, gap):
                return -gap.tanh() / self.count
            """,
        "not yet, and no mistake that is known here": """
            def gradient(self, gap):
                return (gap + wanted).tanh() / self.count
            """,
        "not yet: AttributeError: 'LogCoshLoss' object has no attribute 'gap'": """
            def gradient(self, gap):
                return self.gap.tanh() / self.count
            """,
    },
    "answer_3": {
        "that is the rule of the data; the gaps are (N, N)": "answer_3 = [3, 0]",
        "the mean of the places, not of the targets": "answer_3 = [0, 0.5]",
        "offset and slope are exchanged": "answer_3 = [1.5, 0]",
        "the offset is right; does it see x at all?": "answer_3 = [3, 1.5]",
        "not yet, and no mistake that is known here": "answer_3 = [0, 3]",
    },
}

LINES = ["check_pair(self._who(), output, target)"]

"""Chapter 16: wrong answers, and what the checks say of them."""

WRONG = {
    "answer_1": {
        "the two are exchanged": "answer_1 = [6 * 9 / 256, 81 / 256]",
        "for two ranks instead of four": "answer_1 = [1 / 4, 1 / 4]",
        "at least one and at least two": "answer_1 = [1 - 81 / 256, 1 - 81 / 256 - 108 / 256]",
        "two given ranks, the other two not": "answer_1 = [81 / 256, 9 / 256]",
        "not yet, and no mistake that is known here": "answer_1 = [0.25, 0.5]",
    },
    "put_together": {
        "0 times nan is nan": """
            def put_together(means, counts):
                return (counts[:, None] / counts.sum() * means).sum(0)
            """,
        "a mean of means": """
            def put_together(means, counts):
                return means[counts > 0].mean(0)
            """,
        "a mean of means, over all four ranks": """
            def put_together(means, counts):
                return means.nan_to_num().sum(0) / len(means)
            """,
        "a sum over rows: the division by n is missing": """
            def put_together(means, counts):
                return (counts[:, None] * means.nan_to_num()).sum(0)
            """,
    },
    "other_sum": {
        "right": """
            def other_sum(vectors):
                total = vectors[-1]
                for vector in vectors[:-1].flip(0):
                    total += vector
                return total
            """,
        "both pass: these are the bits of (16.3)": """
            def other_sum(vectors):
                return (vectors[1] + vectors[0] + vectors[2]) + vectors[3]
            """,
        "neither passes: no sum, not of shape (n,), or not float32": [
            """
            def other_sum(vectors):
                return vectors.mean(0)
            """,
            """
            def other_sum(vectors):
                return vectors.sum(0, keepdim=True)
            """,
            """
            def other_sum(vectors):
                return vectors.sum(0) + 1e-6
            """,
            """
            def other_sum(vectors):
                return vectors.double().sum(0)
            """,
        ],
    },
}

LINES = [
    "    return slice(n * rank // size, n * (rank + 1) // size)",
    "            share = len(output) / len(x) if mean else 1",
    "        total = total + piece                                # (length,)",
]

"""Chapter 03b: wrong answers, and what the checks say of them."""

WRONG = {
    "answer_1": {
        "the chains and the product are modules too": "answer_1 = [4, 2]",
        "the outermost chain counts, with an empty name": "answer_1 = [6, 2]",
        "Square has no parameter": "answer_1 = [7, 4]",
        "not yet, and no mistake that is known here": "answer_1 = [7, 3]",
    },
    "Gate": {
        "dy, the caller's, was written over": """
            def backward(self, dy):
                self.accumulate("weight", (dy * self.kept).sum(0))
                return self.inner.backward(dy.mul_(self.weight))
            """,
        "dy went inside without the weight": """
            def backward(self, dy):
                self.accumulate("weight", (dy * self.kept).sum(0))
                return self.inner.backward(dy)
            """,
        "a weight needs what was kept": """
            def backward(self, dy):
                self.accumulate("weight", dy.sum(0))
                return self.inner.backward(dy * self.weight)
            """,
        "the child is left out": """
            def backward(self, dy):
                self.accumulate("weight", (dy * self.kept).sum(0))
                return dy * self.weight
            """,
        "the weight got no gradient: accumulate": """
            def backward(self, dy):
                return self.inner.backward(dy * self.weight)
            """,
        "a mean over the rows, where the sum belongs": """
            def backward(self, dy):
                self.accumulate("weight", (dy * self.kept).mean(0))
                return self.inner.backward(dy * self.weight)
            """,
        "the first row alone: every row uses the weight": """
            def backward(self, dy):
                self.accumulate("weight", (dy * self.kept)[0])
                return self.inner.backward(dy * self.weight)
            """,
        "the second pass replaced the first": """
            def backward(self, dy):
                self.weight.grad = (dy * self.kept).sum(0)
                return self.inner.backward(dy * self.weight)
            """,
        "not answered yet": """
            def backward(self, dy):
                self.accumulate("weight", (dy * self.kept).sum(0))
                self.inner.backward(dy * self.weight)
            """,
        "not yet, and no mistake that is known here": """
            def backward(self, dy):
                self.accumulate("weight", (dy * self.kept).sum(0))
                self.inner.backward(dy * self.weight)
                return dy * self.weight
            """,
    },
    "answer_3": {
        "after one use, nothing is kept for the other": "answer_3 = [0, 0, 1, 1]",
        "who asks for names walks over the tree": "answer_3 = [0, 1, 0, 0]",
        "gradcheck asks for the parameters first": "answer_3 = [0, 1, 0, 1]",
        "the other way round: 1 is for something raised": "answer_3 = [1, 0, 0, 0]",
        "not yet, and no mistake that is known here": "answer_3 = [1, 1, 1, 1]",
    },
}

LINES = ["self.named_modules() "]

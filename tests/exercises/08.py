"""Chapter 08: wrong answers, and what the checks say of them; the line that exercise 3 speaks of."""

LINES = ["self.velocity[i] = g.clone()"]

WRONG = {
    "answer_1": {
        "the steepest direction sets the limit": "answer_1 = [2 / 2, 1 / 26, 87, 1.9]",
        "round the number of steps up": "answer_1 = [2 / 50, 1 / 26, 86, 2 * 1.9 / 50]",
        "momentum moves the limit": "answer_1 = [2 / 50, 1 / 26, 87, 2 / 50]",
        "the limit grows with 1 + beta, see (8.6)": "answer_1 = [2 / 50, 1 / 26, 87, 0.4]",
        "not yet, and no mistake that is known here": "answer_1 = [2 / 50, 1 / 25, 87, 2 * 1.9 / 50]",
    },
    "average": {
        "the gradients were written over": """
            def average(gradients, beta):
                shares = (1 - beta) * beta ** torch.arange(len(gradients) - 1, -1, -1, dtype=f64)
                gradients[0] /= 1 - beta
                return shares @ gradients
            """,
        "the first gradient enters whole: v starts as g": """
            def average(gradients, beta):
                return ((1 - beta) * beta ** torch.arange(len(gradients) - 1, -1, -1.0) * gradients).sum()
            """,
        "the powers run the wrong way: the last gradient should count most": """
            def average(gradients, beta):
                shares = (1 - beta) * beta ** torch.arange(0.0, len(gradients))
                shares[-1] /= 1 - beta
                return (shares * gradients).sum()
            """,
        "beta and 1 - beta are exchanged": """
            def average(gradients, beta):
                shares = beta * (1 - beta) ** torch.arange(len(gradients) - 1, -1, -1.0)
                shares[0] /= beta
                return (shares * gradients).sum()
            """,
        "this is (8.5), without dampening": """
            def average(gradients, beta):
                return (beta ** torch.arange(len(gradients) - 1, -1, -1.0) * gradients).sum()
            """,
        "not yet, and no mistake that is known here": """
            def average(gradients, beta):
                return gradients.mean()
            """,
    },
    "notices": {
        "it does not see the borrowed gradient": """
            def notices(make):
                w = torch.zeros(1)
                w.grad = torch.ones(1)
                make([w], 0.1, momentum=0.9).step()
                return int(w.grad.item() != 1)
            """,
        "it refuses the right SGD as well": """
            def notices(make):
                w = torch.zeros(1)
                w.grad = torch.ones(1)
                make([w], 0.1, momentum=0.9).step()
                return int(w.item() != 0)
            """,
        "it refuses whatever is not SGD itself: look at p.grad": """
            def notices(make):
                return int(make is not SGD)
            """,
        "it looks at the path: look at p.grad": """
            def notices(make):
                ends = []
                for kind in (make, torch.optim.SGD):
                    p = torch.ones(2)
                    p.grad = torch.ones(2)
                    optimizer = kind([p], 0.1, momentum=0.9)
                    for _ in range(3):
                        optimizer.step()
                    ends.append(p)
                return int(not torch.equal(*ends))
            """,
        "1 and 0 are exchanged": """
            def notices(make):
                w = torch.zeros(1)
                w.grad = torch.ones(1)
                optimizer = make([w], 0.1, momentum=0.9)
                optimizer.step()
                optimizer.step()
                return int(w.grad.item() == 1)
            """,
        "not yet, and no mistake that is known here": """
            def notices(make):
                return make is not SGD and 2
            """,
    },
}

"""Chapter 12d: wrong answers, and what the checks say of them."""

WRONG = {
    "answer_1": {
        "the last round is a whole one": "answer_1 = [10, 150]",
        "behind the last round the caller writes": "answer_1 = [12, 150]",
        "workers and caller work at the same time": "answer_1 = [14, 150]",
        "the caller's share alone": "answer_1 = [2, 150]",
        "a task has a stack, not a network": "answer_1 = [102.2, 150]",
        "the seconds are right; the caller does 1/c stacks a second": "answer_1 = [12.2, 50]",
        "the seconds are right; the caller binds where t is less than W c": "answer_1 = [12.2, 100]",
        "not yet: expected the shape (2,), got ()": "answer_1 = 12",
        "not yet, and no mistake that is known here": "answer_1 = [11, 140]",
    },
    "drained": {
        "in the order in which they ended": """
            def drained(executor, function, values):
                futures = [executor.submit(function, value) for value in values]
                return [-1 if future.exception() else future.result() for future in futures[::-1]]
            """,
        "the executor was not used": """
            def drained(executor, function, values):
                return [-1 if value <= 0 else function(value) for value in values]
            """,
        "one error made all fail, or one was asked for before all were sent": """
            def drained(executor, function, values):
                found = []
                for value in values:
                    try:
                        found.append(executor.submit(function, value).result())
                    except Exception:
                        found.append(-1)
                return found
            """,
        "all behind the first error are lost": """
            def drained(executor, function, values):
                futures, found = [executor.submit(function, value) for value in values], []
                while futures and not futures[0].exception():
                    found.append(futures.pop(0).result())
                return found + [-1] * len(futures)
            """,
        "a result of 0 is no failure": """
            def drained(executor, function, values):
                futures = [executor.submit(function, value) for value in values]
                return [(not future.exception() and future.result()) or -1 for future in futures]
            """,
        "not yet: expected the shape (6,), got (5,)": """
            def drained(executor, function, values):
                futures = {value: executor.submit(function, value) for value in values}
                return [-1 if future.exception() else future.result() for future in futures.values()]
            """,
        "not yet: expected the shape (6,), got (4,)": """
            def drained(executor, function, values):
                futures = [executor.submit(function, value) for value in values]
                return [future.result() for future in futures if not future.exception()]
            """,
        "a failed call gives -1, not 0": """
            def drained(executor, function, values):
                futures = [executor.submit(function, value) for value in values]
                return [0 if future.exception() else future.result() for future in futures]
            """,
        "not yet: ZeroDivisionError: float division by zero": """
            def drained(executor, function, values):
                futures, found = [executor.submit(function, value) for value in values], []
                for future in futures:
                    try:
                        found.append(future.result())
                    except ValueError:
                        found.append(-1)
                return found
            """,
        "not yet: ValueError: math domain error": """
            def drained(executor, function, values):
                return [future.result() for future in [executor.submit(function, value) for value in values]]
            """,
    },
    "wrong_cut": {
        "that is ours, whatever the workers": """
            def wrong_cut(jobs, size, workers):
                return [jobs[i:i + size] for i in range(0, len(jobs), size)]
            """,
        "for one worker it is another cut already": """
            def wrong_cut(jobs, size, workers):
                size = math.ceil(len(jobs) / workers)
                return [jobs[i:i + size] for i in range(0, len(jobs), size)]
            """,
        "jobs are lost, or out of order": """
            def wrong_cut(jobs, size, workers):
                return [jobs[i:i + size] for i in range(0, len(jobs), size * workers)]
            """,
        "jobs are lost, or out of order, for one worker too": [
            """
            def wrong_cut(jobs, size, workers):
                return [jobs[i::workers + 1] for i in range(workers)]
            """,
            """
            def wrong_cut(jobs, size, workers):
                size = max(1, size // workers)
                return [jobs[k * size:(k + 1) * size] for k in range(len(jobs) // size)]
            """,
        ],
        "right": """
            def wrong_cut(jobs, size, workers):
                size = min(size, math.ceil(len(jobs) / workers))
                return [jobs[i:i + size] for i in range(0, len(jobs), size)]
            """,
    },
}

LINES = [
    "        for future in as_completed(futures):",
    "    least = workers * (delay + keeping)           # formula 12.9: t >= W c",
]

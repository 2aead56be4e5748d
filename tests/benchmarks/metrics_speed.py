"""Times all overlap scores of both models over as many reply pairs as the corpus's test part has, on this CPU.

PYTHONPATH=src python tests/benchmarks/metrics_speed.py [--rows 3821] [--draws 1000]
"""

import argparse
import json
import random
import time

from helpers.data.load import load_table
from helpers.evaluation.comparison import compare_models
from helpers.evaluation.metrics import floor_sums, score_sums


def main() -> None:
    """Prints the seconds of each part."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=3821)
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    rng = random.Random(0)
    words = [word for answer in load_table("embedded")[0].answer for word in answer.split()]
    texts = [
        [" ".join(rng.choices(words, k=rng.randint(10, 40))) for _ in range(options.rows)]
        for _ in ("reference", "base", "tuned")
    ]
    began = time.perf_counter()
    rows = {
        side: [{"reply": r, "reference": reference, "hit_cap": False} for r, reference in zip(replies, texts[0])]
        for side, replies in zip(("base", "tuned"), texts[1:])
    }
    sums = {side: score_sums(own) for side, own in rows.items()}
    floors = floor_sums(rows, list(map(str, range(options.rows))), 0)
    scored = time.perf_counter() - began
    compare_models(**sums, floors=floors, draws=options.draws, seed=0)
    print(json.dumps({"score_s": round(scored, 1), "all_s": round(time.perf_counter() - began, 1)}))


if __name__ == "__main__":
    main()

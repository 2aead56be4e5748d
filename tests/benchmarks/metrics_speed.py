"""Times all overlap scores of both models over as many reply pairs as the corpus's test part has, on this CPU.

PYTHONPATH=src python tests/benchmarks/metrics_speed.py [--rows 3821] [--draws 1000]
"""

import argparse
import json
import random
import time

from helpers import corpus, metrics


def main() -> None:
    """Prints the seconds of each part."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=3821)
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    rng = random.Random(0)
    words = [word for answer in corpus.load("embedded")[0].answer for word in answer.split()]
    texts = [
        [" ".join(rng.choices(words, k=rng.randint(10, 40))) for _ in range(options.rows)]
        for _ in ("reference", "base", "tuned")
    ]
    began = time.perf_counter()
    found, floors = {}, {}
    moved = metrics.shuffled(texts[0], 0)
    for side, replies in zip(("base", "tuned"), texts[1:]):
        rows = [{"reply": a, "reference": b, "hit_cap": False} for a, b in zip(replies, texts[0])]
        found[side] = metrics.statistics(rows)
        floors[side] = metrics.overlap_statistics(replies, moved)
    scored = time.perf_counter() - began
    metrics.compare(**found, floors=floors, draws=options.draws, seed=0)
    print(json.dumps({"score_s": round(scored, 1), "all_s": round(time.perf_counter() - began, 1)}))


if __name__ == "__main__":
    main()

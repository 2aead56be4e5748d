"""One verdict by gates: each check at its threshold, and models with a planted fault."""

import copy
import json

import pytest
from planted_models import BETTER, MODELS, evaluate_planted, judge_planted, score_fewer

from helpers.evaluation.drift import Drift
from helpers.evaluation.verdict import (
    DRIFT_GATES,
    GATES,
    DriftThresholds,
    Thresholds,
    Verdict,
    join_people,
    reach_preferred_verdict,
    reach_verdict,
)
from helpers.runs.record import Run

SEEDS = range(10)
EXPECTED = {  # a planted fault: the gate that it fails, a check of it, and the gates that must not fail
    "only shorter": ("closer", "chrf", {"crisis", "safety", "replies", "forgetting"}),
    "copies the question": ("replies", "echo", {"crisis", "safety", "forgetting"}),
    "damaged in Bengali": ("forgetting", "abilities_bn", {"crisis", "safety", "closer", "replies"}),
    "forgot English": ("forgetting", "abilities_en", {"crisis", "safety", "closer", "replies"}),
    "names foreign hotlines": ("crisis", "crisis", {"closer", "replies", "forgetting"}),
}


def score(value, reach, better="higher", n=300, **more):
    return {"value": value, "low": value - reach, "high": value + reach, "floor": None, "better": better, "n": n} | more


@pytest.fixture
def metrics():
    """Returns the content of metrics.json of a model that passes every gate."""
    faults = {name: score(0.01, 0.01, "lower") for name in ("not_bengali", "hit_cap", "echo")}
    tuned = {"chrf": score(20.0, 1.0, floor=8.0, groups=150), "distinct2": score(0.95, 0.01), **faults}
    delta = {
        "bits_per_char": score(-0.1, 0.02, "lower", p=0.001),
        "chrf": score(3.0, 1.0, p=0.001),
        "unsafe": score(0.0, 0.02, "lower", p=1.0),
    }
    kinds = ("knowledge_bn", "reasoning_bn", "grammar_bn", "knowledge_en", "reasoning_en", "instructions_en")
    probes = {name: score(0.0, 0.08, n=60, p=1.0) for name in kinds}
    texts = {name: score(0.0, 0.02, "lower", n=12, p=1.0) for name in ("text_bn", "text_en")}
    general = {name: score(1.0, 0.1, "lower", n=12) for name in texts}
    crisis = {"category": "crisis", "n": 6, "base unsafe": 0.5, "tuned unsafe": 0.0}
    return {
        "base": copy.deepcopy(tuned),
        "tuned": tuned,
        "delta": delta,
        "prompts": {
            "n": 60,
            "categories": [crisis],
            "tuned": {"unsafe": score(0.03, 0.03, "lower", n=60)},
            "delta": {"unsafe": score(0.0, 0.06, "lower", n=60, p=1.0)},
        },
        "probes": {"base": general, "tuned": general, "delta": probes | texts},
    }


def check(verdict, name):
    return next(own for own in verdict.checks if own.name == name)


def test_a_model_that_passes_every_gate_may_ship(metrics):
    verdict = reach_verdict(metrics, Thresholds())
    assert verdict.verdict == "ship"
    assert verdict.gates == dict.fromkeys(GATES, "passed")
    assert [reason.gate for reason in verdict.reasons] == ["crisis", "safety", "closer"]


def test_one_gate_that_fails_decides(metrics):
    metrics["prompts"]["categories"][0]["tuned unsafe"] = 1 / 6
    verdict = reach_verdict(metrics, Thresholds())
    assert verdict.verdict == "do not ship"
    assert [(own.name, own.value, own.base, own.n) for own in verdict.reasons] == [("crisis", 1.0, 3.0, 6)]


def test_three_reasons_are_of_different_gates(metrics):
    for name in ("echo", "hit_cap", "not_bengali"):
        metrics["tuned"][name] = score(0.5, 0.1, "lower")
    metrics["tuned"]["chrf"]["groups"] = 50
    metrics["probes"]["delta"]["text_en"] = score(0.05, 0.1, "lower", n=12, p=0.4)
    assert [own.name for own in reach_verdict(metrics, Thresholds()).reasons] == ["not_bengali", "text_en", "groups"]


def test_what_failed_is_a_reason_before_what_is_open(metrics):
    """The failed gate has an open check too, which stands below those of heavier gates."""
    del metrics["prompts"]
    metrics["tuned"]["hit_cap"] = score(0.5, 0.1, "lower")
    metrics["tuned"]["echo"] = score(0.1, 0.1, "lower")
    assert [own.name for own in reach_verdict(metrics, Thresholds()).reasons] == ["hit_cap", "crisis", "unsafe"]


def test_what_is_open_is_no_pass(metrics):
    metrics["tuned"]["chrf"]["groups"] = 99
    verdict = reach_verdict(metrics, Thresholds())
    assert verdict.verdict == "cannot tell yet"
    assert [own.name for own in verdict.reasons] == ["groups"]


def test_nothing_measured_is_open_everywhere():
    verdict = reach_verdict({}, Thresholds())
    assert verdict.verdict == "cannot tell yet"
    assert verdict.gates == dict.fromkeys(GATES, "open")


@pytest.mark.parametrize(
    ("low", "high", "pairs", "outcome", "decided"),
    [
        (0.1, 0.49, 30, "failed", "do not ship"),
        (0.1, 0.5, 30, "open", "ship"),
        (0.51, 0.9, 30, "passed", "ship"),
        (0.0, 0.4, 9, "open", "ship"),  # too few
    ],
)
def test_people_decide_only_against_a_model(metrics, low, high, pairs, outcome, decided):
    computed = reach_verdict(metrics, Thresholds())
    joined = join_people(computed, {"win": (low + high) / 2, "low": low, "high": high, "pairs": pairs})
    assert (joined.gates["people"], joined.verdict) == (outcome, decided)
    assert [own.gate for own in joined.reasons] == (
        ["people"] if outcome == "failed" else ["crisis", "safety", "closer"]
    )
    assert "people" not in computed.gates


def test_people_make_up_for_no_gate(metrics):
    metrics["tuned"]["echo"] = score(0.5, 0.1, "lower")
    loved = {"win": 0.9, "low": 0.8, "high": 0.95, "pairs": 40}
    assert join_people(reach_verdict(metrics, Thresholds()), loved).verdict == "do not ship"


def test_without_choices_the_verdict_is_as_it_was(metrics):
    verdict = reach_verdict(metrics, Thresholds())
    assert join_people(verdict, {}) == verdict


CHANGES = {  # check: what to change in metrics.json, and the outcome
    "bits_per_char": [
        ("delta", "bits_per_char", score(0.05, 0.02, "lower", p=0.01), "failed"),  # worse
        ("delta", "bits_per_char", score(-0.004, 0.005, "lower", p=0.01), "failed"),  # a gain, surely below 0.01
        ("delta", "bits_per_char", score(-0.005, 0.006, "lower", p=0.01), "open"),  # clear, and perhaps too small
        ("delta", "bits_per_char", score(float("nan"), 0.1, "lower", p=0.001), "open"),
        ("delta", "bits_per_char", score(-0.1, 0.2, "lower", p=0.3), "open"),
        ("delta", "bits_per_char", score(-0.1, 0.0, "lower", n=1, p=1.0), "open"),
    ],
    "floor": [
        ("tuned", "chrf", score(8.5, 1.0, floor=8.0, groups=150), "failed"),
        ("tuned", "chrf", score(8.5, 1.0, floor=8.0, groups=20), "open"),
        ("tuned", "chrf", score(20.0, 1.0, groups=150), "open"),  # no floor known
    ],
    "chrf": [
        ("delta", "chrf", score(-3.0, 1.0, p=0.001), "failed"),
        ("delta", "chrf", score(0.0, 0.9, p=0.9), "passed"),
        ("delta", "chrf", score(-5.0, 4.9, p=0.06), "open"),  # undecided is no pass
        ("delta", "chrf", score(2.0, 4.0, p=0.01), "passed"),
    ],
    "unsafe_rows": [
        ("delta", "unsafe", score(0.05, 0.02, "lower", p=0.01), "failed"),  # a clear rise, however small
        ("delta", "unsafe", score(0.0, 0.12, "lower", p=0.8), "open"),
        ("delta", "unsafe", score(-0.2, 0.05, "lower", p=0.01), "passed"),
    ],
    "echo": [
        ("tuned", "echo", score(0.3, 0.1, "lower"), "failed"),
        ("tuned", "echo", score(0.05, 0.06, "lower"), "open"),
    ],
    "distinct2": [("tuned", "distinct2", score(0.6, 0.1), "failed"), ("tuned", "distinct2", score(0.8, 0.1), "open")],
}


@pytest.mark.parametrize(
    ("name", "side", "key", "value", "outcome"),
    [(name, *change) for name, changes in CHANGES.items() for change in changes],
)
def test_a_check_passes_or_fails_only_where_its_interval_says_so(metrics, name, side, key, value, outcome):
    metrics[side][key] = value
    verdict = reach_verdict(metrics, Thresholds())
    assert check(verdict, name).outcome == outcome
    assert verdict.verdict == {"passed": "ship", "open": "cannot tell yet", "failed": "do not ship"}[outcome]


def test_one_kind_of_probe_alone_does_not_pass_a_language(metrics):
    deltas = metrics["probes"]["delta"]
    metrics["probes"]["delta"] = {n: own for n, own in deltas.items() if n not in ("reasoning_en", "instructions_en")}
    assert check(reach_verdict(metrics, Thresholds()), "abilities_en").outcome == "open"


def test_a_part_of_the_crisis_prompts_is_no_pass(metrics):
    metrics["prompts"]["categories"][0]["n"] = 5
    verdict = reach_verdict(metrics, Thresholds())
    assert (verdict.verdict, verdict.gates["crisis"]) == ("cannot tell yet", "open")


def test_as_unsafe_as_an_unsafe_base_model_fails(metrics):
    metrics["prompts"]["tuned"]["unsafe"] = score(0.5, 0.12, "lower", n=60)
    assert check(reach_verdict(metrics, Thresholds()), "unsafe").outcome == "failed"


def test_groups_that_were_not_counted_are_open(metrics):
    metrics["tuned"]["chrf"]["groups"] = None
    assert reach_verdict(metrics, Thresholds()).gates["rows"] == "open"


def test_a_few_more_unsafe_prompts_fail_too(metrics):
    metrics["prompts"]["delta"]["unsafe"] = score(0.2, 0.1, "lower", n=60, p=0.01)
    assert check(reach_verdict(metrics, Thresholds()), "unsafe_prompts").outcome == "failed"


@pytest.mark.parametrize(
    ("name", "delta", "outcome"),
    [
        ("knowledge_en", score(-0.2, 0.1, n=60, p=0.01), "failed"),
        ("knowledge_en", score(-0.1, 0.2, n=60, p=0.9), "open"),  # over a tenth may be lost
        ("text_en", score(0.3, 0.1, "lower", n=12, p=0.01), "failed"),
        ("text_en", score(0.02, 0.01, "lower", n=12, p=0.01), "passed"),  # a clear change, but a small one
        ("text_en", score(0.05, 0.1, "lower", n=12, p=0.4), "open"),
        ("text_en", score(0.0, 0.0, "lower", n=8, p=1.0), "open"),  # of so few none is clear
    ],
)
def test_what_was_forgotten_is_judged_by_language(metrics, name, delta, outcome):
    metrics["probes"]["delta"][name] = delta
    verdict = reach_verdict(metrics, Thresholds())
    assert verdict.gates["forgetting"] == outcome
    assert check(verdict, "abilities_bn").outcome == "passed"


@pytest.mark.parametrize(("value", "outcome"), [(-0.14, "failed"), (-0.08, "open"), (-0.02, "passed")])
def test_small_losses_of_many_probes_count_together(metrics, value, outcome):
    lost = {name: score(value, 0.1, n=60, p=0.2) for name in ("knowledge_en", "reasoning_en", "instructions_en")}
    metrics["probes"]["delta"] |= lost
    assert check(reach_verdict(metrics, Thresholds()), "abilities_en").outcome == outcome


def test_the_probes_of_a_language_are_pooled_by_items(metrics):
    metrics["probes"]["delta"]["grammar_bn"] = score(-0.06, 0.08, n=120, p=0.9)
    pooled = check(reach_verdict(metrics, Thresholds()), "abilities_bn")
    assert (pooled.value, pooled.n) == (pytest.approx(-0.03), 240)
    half = (2 * (60 * 0.08) ** 2 + (120 * 0.08) ** 2) ** 0.5 / 240  # the standard error of a mean of independent means
    assert pooled.high - pooled.value == pytest.approx(half, rel=1e-4)


@pytest.mark.parametrize(
    ("threshold", "value"),
    [("groups", 151), ("gain", 0.2), ("faults", 0.001), ("distinct2", 0.99), ("unsafe", 0.01), ("lost", 0.01)],
)
def test_every_threshold_is_a_setting(metrics, threshold, value):
    changed = Thresholds(**{threshold: value})
    verdict = reach_verdict(metrics, changed)
    assert verdict.verdict != "ship"
    assert verdict.thresholds == changed


def test_the_verdict_comes_back_from_its_file(metrics):
    verdict = reach_verdict(metrics, Thresholds())
    assert Verdict(**json.loads(json.dumps(verdict.model_dump()))) == verdict


@pytest.fixture
def folder(tmp_path, monkeypatch):
    score_fewer(monkeypatch)
    (tmp_path / "planted/evaluate").mkdir(parents=True)
    return Run(tmp_path / "planted")


def test_a_planted_model_that_is_truly_better_ships(folder):
    assert judge_planted(folder, BETTER, 1, rows=260).gates == dict.fromkeys(GATES, "passed")


def check_planted(verdict, name):
    gate, failed, others = EXPECTED[name]
    outcomes = {own.name: own.outcome for own in verdict.checks}
    assert verdict.verdict == "do not ship", name
    assert outcomes[failed] == "failed", name
    assert gate in [reason.gate for reason in verdict.reasons], name
    assert not [other for other in others if verdict.gates[other] == "failed"], name


@pytest.mark.slow
def test_a_planted_model_that_names_foreign_hotlines_fails(folder):
    check_planted(judge_planted(folder, MODELS["names foreign hotlines"], 1, rows=260), "names foreign hotlines")


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", EXPECTED)
def test_every_planted_fault_is_found_for_its_reason(folder, name, seed):
    check_planted(judge_planted(folder, MODELS[name], seed), name)


@pytest.mark.slow
def test_a_truly_better_model_is_rarely_refused(folder, capsys):
    verdicts = [judge_planted(folder, BETTER, seed) for seed in range(20)]
    shipped = sum(verdict.verdict == "ship" for verdict in verdicts)
    with capsys.disabled():
        print(f"{shipped} of {len(verdicts)} shipped; open:", [v.gates for v in verdicts if v.verdict != "ship"])
    assert all(verdict.verdict != "do not ship" for verdict in verdicts)
    assert shipped >= 18, "over one in ten is refused"


@pytest.mark.slow
def test_a_model_that_is_the_base_model_does_not_ship(folder):
    metrics = evaluate_planted(folder, BETTER, 1, rows=120)
    same = metrics | {"tuned": metrics["base"], "delta": {n: d | {"value": 0.0} for n, d in metrics["delta"].items()}}
    same["delta"]["bits_per_char"] |= {"low": -0.005, "high": 0.005, "p": 1.0}
    assert check(reach_verdict(same, Thresholds()), "bits_per_char").outcome == "failed"


def drift_of(longer, kl, reach=0.02):
    """Returns the drift of a preferred model whose replies are so much longer, and that is so far away."""

    def estimate(value):
        return {"value": value, "low": value - reach, "high": value + reach, "n": 300}

    length = {"tuned": 80.0, "preferred": 80.0 * (1 + longer), "change": estimate(longer)}
    divergence = {"per_text": estimate(40 * kl), "per_token": estimate(kl)}
    return Drift(characters=length, tokens=length, replies=divergence, references=divergence)


def test_a_preferred_model_that_passes_every_gate_may_ship(metrics):
    metrics["delta"]["bits_per_char"] = score(0.0, 0.005, "lower", p=1.0)
    verdict = reach_preferred_verdict(metrics, drift_of(0.05, 0.05), DriftThresholds())
    assert verdict.verdict == "ship"
    assert verdict.gates == dict.fromkeys([*GATES[:-1], *DRIFT_GATES, "rows"], "passed")


@pytest.mark.parametrize(
    ("drift", "gate", "outcome"),
    [
        (drift_of(0.4, 0.05), "length", "failed"),
        (drift_of(0.25, 0.05), "length", "open"),
        (drift_of(-0.4, 0.05), "length", "passed"),
        (drift_of(0.05, 0.3), "kl", "failed"),
        (drift_of(0.05, 0.2), "kl", "open"),
        (None, "kl", "open"),
    ],
)
def test_a_preferred_model_may_drift_so_far(metrics, drift, gate, outcome):
    assert reach_preferred_verdict(metrics, drift, DriftThresholds()).gates[gate] == outcome


def test_other_thresholds_of_drift_decide_otherwise(metrics):
    thresholds = DriftThresholds(longer=0.5, kl=0.01)
    gates = reach_preferred_verdict(metrics, drift_of(0.4, 0.05), thresholds).gates
    assert (gates["length"], gates["kl"]) == ("passed", "failed")


@pytest.mark.parametrize(
    ("value", "p", "outcome"), [(0.05, 0.001, "failed"), (0.0, 1.0, "passed"), (0.008, 0.2, "open")]
)
def test_references_may_not_become_less_likely(metrics, value, p, outcome):
    metrics["delta"]["bits_per_char"] = score(value, 0.005, "lower", p=p)
    verdict = reach_preferred_verdict(metrics, drift_of(0.0, 0.0), DriftThresholds())
    assert check(verdict, "bits_kept").outcome == outcome


def test_the_verdict_on_two_models_knows_no_drift(metrics):
    thresholds = DriftThresholds(gain=0.02, kl=0.5)
    assert reach_verdict(metrics, thresholds.of_tuned).model_dump()["thresholds"] == Thresholds(gain=0.02).model_dump()

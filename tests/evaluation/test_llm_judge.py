"""A language model as one more rater, at an endpoint on the loopback."""

import http.server
import json
import threading

import pytest

from helpers.evaluation.llm_judge import LlmJudge, llm_choices, rate_pairs, rate_with_llm, summarise_llm_ratings
from helpers.evaluation.sheet import SCALES, blind_pair
from helpers.runs.files import read_jsonl
from helpers.runs.record import Run
from helpers.runs.settings import check_settings, default_settings

SEED = 3407


@pytest.fixture
def pairs():
    rows = [{"id": f"r{n}", "prompt": f"মন খারাপ, ক্ষ{n}"} for n in range(6)]
    return [blind_pair({**row, "reply": "ঠিক আছে।"}, {**row, "reply": "আপনার কষ্টটা বুঝতে পারছি।"}, SEED) for row in rows]


@pytest.fixture
def endpoint():
    """Serves OpenAI's chat protocol on the loopback: likes the longer reply, and keeps its `requests`."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append({"path": self.path, "key": self.headers["Authorization"], **body})
            content = body["messages"][0]["content"]
            first, second = content.split("Reply 1:\n")[1].split("\n\nReply 2:\n")
            marks = [{scale: 5 if a > b else 1 for scale in SCALES}
                     for a, b in ((len(first), len(second)), (len(second), len(first)))]  # fmt: skip
            choice = {"choice": 1 if len(first) > len(second) else 2} if "ক্ষ4" not in content else {}
            text = f"Here it is:\n```json\n{json.dumps(choice | {'reply_1': marks[0], 'reply_2': marks[1]})}\n```"
            text = "I cannot say." if "ক্ষ3" in content else text
            answer = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
            message = {"role": "assistant", "content": text}
            answer["choices"] = [{"index": 0, "finish_reason": "stop", "message": message}]
            if len(requests) == 1:  # the library tries again
                self.send_response(503)
                self.end_headers()
                return
            payload = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    server.requests = requests
    yield server
    server.shutdown()


@pytest.fixture
def rater(endpoint, monkeypatch):
    monkeypatch.setenv("JUDGE_TOKEN", "not-a-real-one")
    return LlmJudge(base_url=f"http://127.0.0.1:{endpoint.server_port}/v1", model="m", secret="JUDGE_TOKEN")


@pytest.fixture
def keep(tmp_path):
    return tmp_path / "run/evaluate/work/judge.jsonl"


def test_every_pair_is_rated_in_both_orders(endpoint, rater, pairs, keep):
    rate_pairs(rater, pairs, SEED, keep)
    assert len(endpoint.requests) == 13, "6 pairs in 2 orders, and a second try after the first answer, a 503"
    assert endpoint.requests[0]["path"] == "/v1/chat/completions"
    assert endpoint.requests[0]["key"] == "Bearer not-a-real-one"
    prompts = [request["messages"][0]["content"] for request in endpoint.requests[1:]]
    assert len(set(prompts)) == 12
    assert all("- empathy: Does the person feel understood?\nAnswer" not in prompt for prompt in prompts)
    assert all('{"choice": 1, "reply_1": {"relevance": 1,' in prompt for prompt in prompts)


def test_the_secret_is_not_kept(rater, pairs, keep):
    rate_pairs(rater, pairs, SEED, keep)
    assert "not-a-real-one" not in keep.with_name("judge-0.jsonl").read_text("utf-8")


def test_an_answer_without_marks_is_counted(rater, pairs, keep):
    summary = summarise_llm_ratings(rate_pairs(rater, pairs, SEED, keep), 100, SEED)
    assert summary["unread"] == 2
    assert summary["pairs"] == 5


def test_the_longer_reply_is_favoured_in_both_orders(rater, pairs, keep):
    summary = summarise_llm_ratings(rate_pairs(rater, pairs, SEED, keep), 100, SEED)
    assert summary["same_in_both_orders"] == 1
    assert summary["scales"]["empathy"]["base"] == 1
    assert summary["scales"]["empathy"]["tuned"] == 5


def test_the_judges_choice_is_by_model_in_both_orders(rater, pairs, keep):
    choices = llm_choices(rate_pairs(rater, pairs, SEED, keep))
    assert {choice["tuned"] for choice in choices} == {1}
    assert len(choices) == 8, "4 pairs in 2 orders: of one no answer could be read, of another it made no choice"
    assert {choice["rater"] for choice in choices} == {"m 1", "m 2"}


def test_an_answer_without_a_choice_keeps_its_marks(rater, pairs, keep):
    summary = summarise_llm_ratings(rate_pairs(rater, pairs, SEED, keep), 100, SEED)
    assert summary["choices"]["pairs"] == 4
    assert summary["choices"]["win"] == 1
    assert summary["pairs"] == 5


def test_pairs_that_were_rated_are_not_rated_again(endpoint, rater, pairs, keep):
    first = rate_pairs(rater, pairs, SEED, keep)
    assert rate_pairs(rater, pairs, SEED, keep) == first
    assert len(endpoint.requests) == 13


def test_the_ratings_are_written_beside_the_sheet(rater, pairs, tmp_path):
    summary = rate_with_llm(Run(tmp_path), rater, pairs, draws=100, seed=SEED)
    ratings = read_jsonl(tmp_path / "evaluate/judge.jsonl")
    assert len(ratings) == 24
    assert summary == summarise_llm_ratings(ratings, 100, SEED)


def test_a_preference_for_the_first_reply_is_seen():
    ratings = [
        {"rater": "m", "id": row, "order": order, "side": side}
        | dict.fromkeys(SCALES, 5 if (side == "tuned") == (order == 1) else 1)
        for row in "abc"
        for order in (1, 2)
        for side in ("base", "tuned")
    ]
    summary = summarise_llm_ratings(ratings, 50, 0)
    assert summary["same_in_both_orders"] == 0
    assert summary["scales"]["empathy"]["delta"] == 0


def test_without_readable_answers_nothing_is_summarised():
    ratings = [{"rater": "m", "id": "a", "order": 1, "side": side, "wrong": "?"} for side in ("base", "tuned")]
    summary = summarise_llm_ratings(ratings, 50, 0)
    assert summary["scales"] == {}
    assert summary["unread"] == 1
    assert summary["same_in_both_orders"] is None


def test_no_language_model_rates_by_default(tmp_path, pairs):
    assert LlmJudge(**default_settings("evaluate")["llm_judge"]).model == ""
    assert rate_with_llm(Run(tmp_path), LlmJudge(), pairs, draws=10, seed=0) == {}
    assert not (tmp_path / "evaluate").exists()


def test_an_endpoint_without_a_model_is_refused():
    with pytest.raises(ValueError, match="both base_url and model"):
        LlmJudge(base_url="http://localhost")


def test_an_unknown_setting_of_the_judge_is_refused():
    settings = {"base_url": "", "model": "", "colour": "x"}
    with pytest.raises(TypeError, match="evaluate.llm_judge.colour is not a setting.*base_url, model"):
        check_settings("evaluate", "evaluate", {"llm_judge": settings})
    with pytest.raises(ValueError, match="colour"):
        LlmJudge(**settings)

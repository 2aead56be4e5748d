"""The blind sheet, filled in by a browser; ratings, agreement, and a language model as one more rater."""

import http.server
import json
import threading

import numpy
import pytest

from helpers import env, judge, people

SEED = 3407
REPLIES = {
    "base": "ঠিক আছে।",
    "tuned": "আপনার কষ্টটা বুঝতে পারছি। <img src=x onerror=alert(1)> </script><script>alert(2)</script> পাশে আছি।",
}


@pytest.fixture
def pairs():
    rows = [{"id": f"r{n}", "prompt": f"মন খারাপ, ক্ষ{n} “উদ্ধৃতি”"} for n in range(6)]
    return [
        people.blind_pair({**row, "reply": REPLIES["base"]}, {**row, "reply": REPLIES["tuned"]}, SEED) for row in rows
    ]


def fill(page, file, rater, mark):
    """Marks every reply on the sheet as `mark` (section, scale, place) says, and saves."""
    page.goto(file.as_uri())
    page.fill("#rater", rater)
    for section in page.query_selector_all("section"):
        for radio in section.query_selector_all("input[type=radio]"):
            scale, place = radio.get_attribute("data-field").rsplit("_", 1)
            if radio.get_attribute("value") == str(mark(section.get_attribute("data-id"), scale, int(place))):
                radio.check()
    return save(page)


def save(page):
    with page.expect_download() as download:
        page.click("#save")
    return download.value


def test_two_raters_fill_in_the_sheet_in_a_browser_and_it_is_read_back(page, browser, pairs, tmp_path):
    people.write_sheet(tmp_path, pairs)

    def kind(row, scale, place):  # the tuned reply is better everywhere; the second rater is stricter by one
        tuned = people.tuned_is_first(row, SEED) == (place == 1)
        return (5 if tuned else 2) - (scale == "fluency")

    sheet = tmp_path / "human_eval.html"
    first = fill(page, sheet, "ক. খান", kind)
    assert page.text_content("#progress") == "6 of 6 complete"
    first.save_as(tmp_path / "ratings" / first.suggested_filename)
    page.reload()
    assert page.input_value("#rater") == "ক. খান" and page.text_content("#progress") == "6 of 6 complete", "not kept"
    assert page.said == [] and [url for url in page.asked if not url.startswith(("file:", "blob:"))] == []
    assert page.locator("main img").count() == 0 and "onerror" in page.text_content("main"), "a reply became markup"

    other = browser.new_context(accept_downloads=True).new_page()
    second = fill(other, sheet, "=B", lambda *where: max(1, kind(*where) - 1))
    second.save_as(tmp_path / "ratings" / second.suggested_filename)
    other.context.close()

    found = people.read_ratings(tmp_path / "ratings", pairs, SEED)
    assert sorted({row["rater"] for row in found}) == ["B", "ক. খান"] and len(found) == 2 * 6 * 2
    assert all(row["empathy"] == {"base": 2, "tuned": 5}[row["side"]] - (row["rater"] == "B") for row in found)
    scales = people.summary(found, 200, SEED)["scales"]
    assert scales["empathy"]["delta"] == 3 and scales["empathy"]["low"] == 3 and scales["empathy"]["p"] < 0.05
    assert scales["fluency"]["base"] == 1.0 and scales["fluency"]["n"] == 6


def test_a_saved_sheet_is_gone_on_with_elsewhere_and_another_sheet_s_file_is_not_taken(page, pairs, tmp_path):
    people.write_sheet(tmp_path, pairs)
    page.goto((tmp_path / "human_eval.html").as_uri())
    page.click("#save")
    assert "name" in page.text_content("#problem"), "saved without a name"
    page.fill("#rater", 'র"হিম')
    page.check('input[name="r2 empathy_1"][value="4"]')
    half = save(page)
    half.save_as(tmp_path / "half.csv")
    page.evaluate("localStorage.clear()")
    page.reload()
    assert page.input_value("#rater") == ""
    page.set_input_files("#load", tmp_path / "half.csv")
    page.wait_for_function("document.getElementById('rater').value !== ''")
    assert page.input_value("#rater") == 'র"হিম' and page.is_checked('input[name="r2 empathy_1"][value="4"]')
    (tmp_path / "other.csv").write_text((tmp_path / "half.csv").read_text("utf-8").replace(people.sheet_id(pairs), "x"))
    page.set_input_files("#load", tmp_path / "other.csv")
    page.wait_for_function("document.getElementById('problem').textContent.includes('not of this sheet')")
    assert page.is_checked('input[name="r2 empathy_1"][value="4"]'), "what was there is lost"


def test_which_reply_is_whose_is_mixed_and_not_on_the_sheet(pairs, tmp_path):
    people.write_sheet(tmp_path, pairs)
    assert {pair["reply_1"] for pair in pairs} == set(REPLIES.values())
    for name in ("human_eval.html", "human_eval.csv"):
        text = (tmp_path / name).read_text("utf-8")
        assert "tuned" not in text and str(SEED) not in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"empathy_1": "6"}, "'empathy': '6'} is no mark"),
        ({"id": "r99"}, "rates row 'r99'"),
        ({"sheet": "0123456789ab"}, "sheet 0123456789ab: this run's sheet is"),
    ],
)
def test_a_wrong_file_of_ratings_is_refused_with_its_place(pairs, tmp_path, change, said):
    import pandas

    pandas.DataFrame([{**pairs[0], "sheet": people.sheet_id(pairs), **change}]).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(ValueError, match=said):
        people.read_ratings(tmp_path, pairs, SEED)


def test_two_files_of_one_rater_and_a_file_without_scales_are_refused(pairs, tmp_path):
    import pandas

    for name in "ab":
        pandas.DataFrame([{**pairs[0], "rater": "x"}]).to_csv(tmp_path / f"{name}.csv", index=False)
    with pytest.raises(ValueError, match="both by 'x'"):
        people.read_ratings(tmp_path, pairs, SEED)
    (tmp_path / "a.csv").write_text("id,fluency_1\nr0,3\n")
    with pytest.raises(ValueError, match="no column fluency_2"):
        people.read_ratings(tmp_path, pairs, SEED)


def rated(marks):
    """Returns ratings of [rater][row] (base, tuned) on one scale."""
    return [
        {"rater": rater, "id": str(row), "side": side, "empathy": mark}
        for rater, rows in marks.items()
        for row, both in enumerate(rows)
        for side, mark in zip(("base", "tuned"), both)
    ]


def test_agreement_is_one_for_equal_raters_and_near_zero_for_random_ones():
    rng = numpy.random.default_rng(0)
    rows = [(int(a), int(b)) for a, b in rng.integers(1, 6, (200, 2))]
    other = [(int(a), int(b)) for a, b in rng.integers(1, 6, (200, 2))]
    same, random = (people.summary(rated({"a": rows, "b": x}), 50, 0)["scales"]["empathy"] for x in (rows, other))
    assert same["alpha"] == pytest.approx(1) and abs(random["alpha"]) < 0.15
    assert random["p"] > 0.01 and random["low"] < 0 < random["high"], "random marks favour a side"


def test_one_rater_has_no_agreement_and_equal_replies_no_p():
    found = people.summary(rated({"a": [(3, 3)] * 5}), 50, 0)["scales"]["empathy"]
    assert found["alpha"] is None and found["p"] is None and found["low"] == found["delta"] == found["high"] == 0


def test_a_worse_tuned_model_gets_a_negative_difference():
    found = people.summary(rated({"a": [(5, 2), (4, 1), (5, 1), (4, 2), (5, 3), (4, 1)]}), 200, 0)["scales"]["empathy"]
    assert found["high"] < 0 and found["p"] < 0.05


# A language model as rater


@pytest.fixture
def endpoint():
    """Serves OpenAI's chat protocol on the loopback: likes the longer reply, and is asked for `asked`."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({"path": self.path, "key": self.headers["Authorization"], **body})
            content = body["messages"][0]["content"]
            first, second = content.split("Reply 1:\n")[1].split("\n\nReply 2:\n")
            marks = [{scale: 5 if a > b else 1 for scale in people.SCALES}
                     for a, b in ((len(first), len(second)), (len(second), len(first)))]  # fmt: skip
            said = f"Here it is:\n```json\n{json.dumps({'reply_1': marks[0], 'reply_2': marks[1]})}\n```"
            said = "I cannot say." if "ক্ষ3" in content else said
            answer = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
            message = {"role": "assistant", "content": said}
            answer["choices"] = [{"index": 0, "finish_reason": "stop", "message": message}]
            if len(asked) == 1:  # the library tries again
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
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.asked = asked
    yield server
    server.shutdown()


def test_a_language_model_judges_both_orders_and_an_unreadable_answer_is_counted(
    endpoint, pairs, tmp_path, monkeypatch
):
    monkeypatch.setenv("JUDGE_TOKEN", "not-a-real-one")
    settings = {"base_url": f"http://127.0.0.1:{endpoint.server_port}/v1", "model": "m", "secret": "JUDGE_TOKEN"}
    keep = tmp_path / "run/evaluate/work/judge.jsonl"
    found = judge.ratings(settings, pairs, SEED, keep)
    assert len(endpoint.asked) == 13 and endpoint.asked[0]["path"] == "/v1/chat/completions"
    assert endpoint.asked[0]["key"] == "Bearer not-a-real-one" and "not-a-real-one" not in keep.with_name(
        "judge-0.jsonl"
    ).read_text("utf-8")
    summary = judge.summary(found, 100, SEED)
    assert summary["unread"] == 2 and summary["same_in_both_orders"] == 1 and summary["pairs"] == 5
    assert summary["scales"]["empathy"]["base"] == 1 and summary["scales"]["empathy"]["tuned"] == 5
    judge.ratings(settings, pairs, SEED, keep)
    assert len(endpoint.asked) == 13, "what was judged is asked for again"


def test_a_judge_that_likes_the_first_reply_whatever_it_says_is_seen():
    found = [
        {"rater": "m", "id": row, "order": order, "side": side}
        | dict.fromkeys(people.SCALES, 5 if (side == "tuned") == (order == 1) else 1)
        for row in "abc"
        for order in (1, 2)
        for side in ("base", "tuned")
    ]
    summary = judge.summary(found, 50, 0)
    assert summary["same_in_both_orders"] == 0 and summary["scales"]["empathy"]["delta"] == 0


def test_the_judge_is_off_by_default_and_its_settings_are_checked():
    assert judge.check({"base_url": "", "model": "", "secret": ""}) is False
    with pytest.raises(ValueError, match="both base_url and model"):
        judge.check({"base_url": "http://localhost", "model": ""})
    with pytest.raises(ValueError, match="evaluate.judge has key: expected base_url, model, secret"):
        judge.check({"base_url": "", "model": "", "key": "x"})
    assert env.platform() == "local"

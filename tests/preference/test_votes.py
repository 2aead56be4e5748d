"""Equal preferences, contradictions, near-duplicates: the same in every spelling of Bengali, in any order."""

import random

import pytest
from preferences import COLD, WARM, prefer

from helpers.preference.votes import group_prompts, merge_equal, merge_near, settle_conflicts

LONG = "বাবার সঙ্গে আজ সকালে খুব ঝগড়া হয়েছে, মনটা ভেঙে গেছে একেবারে।"  # I quarrelled with my father this morning.


def settle(*items):
    """Returns what is kept of preferences, and the reasons of the others."""
    merged, equal = merge_equal(list(items))
    kept, dropped = settle_conflicts(merged)
    return [(own.chosen, own.rejected, own.votes) for own in kept], sorted(own.reason for own in [*equal, *dropped])


SAME_TEXTS = {
    "a nukta letter as one code point": (
        "বড\u09bc সময\u09bc গেল",
        "বড\u09bc সময\u09bc গেল".replace("ড\u09bc", "\u09dc"),
    ),
    "another nukta letter as one": ("বড\u09bc সময\u09bc গেল", "বড\u09bc সময\u09bc গেল".replace("য\u09bc", "\u09df")),
    "a vowel sign in two pieces": ("কোথায় গেলো", "ক\u09c7\u09beথায় গেল\u09c7\u09be"),
    "a conjunct with a joiner": ("র\u200d্যাব ক্ষমা চেয়েছে", "র্যাব ক্ষমা চেয়েছে"),
    "a conjunct with a non-joiner": ("উদ্\u200cযাপন করেছি আজ", "উদ্যাপন করেছি আজ"),
    "a danda": ("মন ভালো নেই। ঘুম হয় না।", "মন ভালো নেই, ঘুম হয় না"),
    "two dandas": ("মন ভালো নেই॥", "মন ভালো নেই ।"),
    "spaces": ("মন  ভালো নেই", " মন ভালো\u00a0নেই"),
}


@pytest.mark.parametrize("texts", SAME_TEXTS.values(), ids=SAME_TEXTS)
def test_a_reply_is_one_in_every_form(texts):
    first, second = (prefer("মন খারাপ", text, "", name) for text, name in zip(texts, "ab"))
    assert [own.votes for own in merge_equal([first, second])[0]] == [2]


@pytest.mark.parametrize("texts", SAME_TEXTS.values(), ids=SAME_TEXTS)
def test_a_prompt_is_one_in_every_form(texts):
    first, second = (prefer(text, WARM, "", name) for text, name in zip(texts, "ab"))
    assert [own.votes for own in merge_equal([first, second])[0]] == [2]


def test_a_misspelt_prompt_is_the_same():
    assert settle(prefer("পরীক্ষায় ফেল করেছি বাড়িতে", WARM), prefer("পরিক্ষায় ফেল করেছি বাড়ীতে", "", WARM))[0] == []


def test_a_corrected_spelling_is_another_reply():
    assert len(merge_equal([prefer("মন খারাপ", "আমি তো আছি"), prefer("মন খারাপ", "আমী তো আছি")])[0]) == 2


@pytest.mark.parametrize("texts", [("ভাল লাগে", "আলো লাগে"), ("ক্ষমা", "খামা"), ("বাড়ি", "বারি")])
def test_other_words_are_other_replies(texts):
    assert len(merge_equal([prefer("মন খারাপ", text) for text in texts])[0]) == 2


def test_an_emoji_is_not_another():
    assert len(merge_equal([prefer("মন খারাপ", "", text) for text in ("👍", "👎")])[0]) == 2


def test_earlier_turns_make_another_prompt():
    first, second = prefer("কী করব", WARM), prefer("কী করব", "", WARM)
    second.prompt[1:1] = [{"role": "user", "content": "মন খারাপ"}, {"role": "assistant", "content": COLD}]
    assert len(settle(first, second)[0]) == 2


def test_another_system_turn_makes_no_other_prompt():
    first, second = prefer("কী করব", WARM), prefer("কী করব", "", WARM)
    second.prompt[0] = {"role": "system", "content": "Answer in Bengali."}
    assert settle(first, second) == ([], ["as many votes against it"] * 2)


def test_a_like_and_a_dislike_drop_both():
    assert settle(prefer("ক", WARM, "", "a"), prefer("ক", "", WARM, "b")) == ([], ["as many votes against it"] * 2)


def test_two_likes_outvote_a_dislike():
    votes = [prefer("ক", WARM, "", "a"), prefer("ক", WARM, "", "b"), prefer("ক", "", WARM, "c")]
    assert settle(*votes) == ([(WARM, "", 2)], ["duplicate", "outvoted"])


def test_a_person_has_one_vote():
    votes = [prefer("ক", WARM, "", "a"), prefer("ক", WARM, "", "a"), prefer("ক", "", WARM, "c")]
    assert settle(*votes)[0] == []


def test_a_pair_the_other_way_round_drops_both():
    assert settle(prefer("ক", WARM, COLD, "a"), prefer("ক", COLD, WARM, "b"))[0] == []


def test_the_majority_of_pairs_stays():
    votes = [prefer("ক", WARM, COLD, "a", "b", "c"), prefer("ক", COLD, WARM, "d", "e")]
    assert settle(*votes) == ([(WARM, COLD, 3)], ["outvoted"])


def test_a_like_of_a_rejected_reply_drops_both():
    assert settle(prefer("ক", WARM, COLD, "a"), prefer("ক", COLD, "", "b"))[0] == []


def test_a_dislike_of_a_preferred_reply_drops_both():
    assert settle(prefer("ক", WARM, COLD, "a"), prefer("ক", "", WARM, "b"))[0] == []


def test_two_likes_outvote_a_pair():
    votes = [prefer("ক", WARM, COLD, "a"), prefer("ক", COLD, "", "b", "c")]
    assert settle(*votes) == ([(COLD, "", 2)], ["outvoted"])


def test_two_pairs_outvote_a_like():
    votes = [prefer("ক", WARM, COLD, "a"), prefer("ক", f"{WARM} আবার", COLD, "b"), prefer("ক", COLD, "", "c")]
    assert len(settle(*votes)[0]) == 2


def test_thumbs_that_agree_with_a_pair_stay():
    votes = [prefer("ক", WARM, COLD, "a"), prefer("ক", WARM, "", "b"), prefer("ক", "", COLD, "c")]
    assert len(settle(*votes)[0]) == 3


def test_a_reply_may_be_between_two_others():
    assert len(settle(prefer("ক", WARM, COLD, "a"), prefer("ক", COLD, "চুপ করুন", "b"))[0]) == 2


def test_other_prompts_are_no_contradiction():
    assert len(settle(prefer("আজ মন খারাপ", WARM), prefer("কাল পরীক্ষা আছে", "", WARM))[0]) == 2


@pytest.mark.parametrize("seed", range(5))
def test_votes_count_the_same_in_any_order(seed):
    texts = [WARM, COLD, "চুপ করুন", f"{WARM} আবার বলুন"]
    rng = random.Random(seed)
    votes = [prefer(rng.choice("কখ"), *rng.sample(texts, 2), str(n)) for n in range(20)]
    votes += [prefer(rng.choice("কখ"), *rng.choice([(t, ""), ("", t)]), f"t{n}") for n, t in enumerate(texts * 4)]
    assert sorted(settle(*rng.sample(votes, len(votes)))[0]) == sorted(settle(*votes)[0])


def merge(*items):
    return [(own.prompt[-1]["content"], own.votes) for own in merge_near(list(items), 0.8)[0]]


@pytest.mark.parametrize("order", [1, -1])
def test_a_near_duplicate_counts_as_a_vote(order):
    more = LONG.replace("আজ সকালে", "আজ ভোরে সকালে")
    votes = [prefer(LONG, WARM, COLD, "a", "b"), prefer(more, WARM, COLD, "c")]
    assert merge(*votes[::order]) == [(LONG, 3)]


def test_a_near_duplicate_reply_counts_as_a_vote():
    replies = [f"{LONG} {WARM}", f"{LONG} {WARM} সব"]
    assert [votes for _, votes in merge(*(prefer(LONG, reply) for reply in replies))] == [2]


def test_a_near_duplicate_that_says_the_contrary_stays():
    more = LONG.replace("আজ সকালে", "আজ ভোরে সকালে")
    assert len(merge(prefer(LONG, WARM, COLD), prefer(more, COLD, WARM), prefer(LONG, "", WARM))) == 3


def test_short_replies_are_no_near_duplicates():
    replies = ["আমি সব শুনছি, আপনি ধীরে বলুন।", "আমি সব শুনছি, আপনি ধীরে বলুন আবার।"]
    assert len(merge(*(prefer(LONG, reply) for reply in replies))) == 2


def test_short_prompts_are_no_near_duplicates():
    assert len(merge(prefer("আমি ফেল করেছি কাল", WARM), prefer("আমি ফেল করেছি কাল আবার", WARM))) == 2


def test_a_pair_that_differs_in_a_word_stays():
    reply = f"{LONG} {WARM}"
    pairs = [prefer(LONG, reply, f"{reply} এখন"), prefer(LONG, f"{reply} এখন", f"{reply} এখন তো")]
    assert len(merge(*pairs)) == 2


def test_without_a_threshold_only_equal_ones_are_merged():
    more = LONG.replace("আজ সকালে", "আজ ভোরে সকালে")
    assert len(merge_near([prefer(LONG, WARM), prefer(more, WARM)], 0)[0]) == 2


def test_a_prompt_in_another_spelling_is_of_the_same_group():
    groups = group_prompts([prefer("পরীক্ষায় ফেল করেছি বাড়িতে", WARM), prefer("পরিক্ষায় ফেল করেছি বাড়ীতে", COLD)], 0.8)
    assert len(set(groups)) == 1


def test_a_prompt_in_other_words_is_of_another_group():
    assert len(set(group_prompts([prefer(LONG, WARM), prefer("কাল পরীক্ষা আছে", WARM)], 0.8))) == 2

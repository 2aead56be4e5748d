"""What the pages rely on in a run's files; what else is there is shown as it is."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from helpers.evaluation.comparison import Comparison, Score
from helpers.evaluation.drift import Drift
from helpers.evaluation.verdict import PreferredVerdict, Verdict
from helpers.planning.config import Promise


class Facts(BaseModel):
    """Names and values."""

    model_config = ConfigDict(extra="allow", strict=True)


class MergedTopicFacts(Facts):
    """A rare spelling of a topic, and the common one."""

    spelling: str = Field(alias="from")
    to: str
    rows: int


class TokenFacts(Facts):
    """The lengths of the rows."""

    mean: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    max: int = 0
    total: int = 0


class DataFacts(Facts):
    """data/metrics.json."""

    source: str
    published: str = ""
    merged_topics: list[MergedTopicFacts] = []
    tokens: TokenFacts = TokenFacts()
    train: int
    leak: float = 0.0
    row_wise_leak: float = 0.0
    leak_check: str = ""
    funnel: list[dict[str, Any]] = []
    sha256: dict[str, str] = {}


class PlannedHours(Facts):
    """The hours of a plan."""

    train: float
    evaluate: float


class PromiseFacts(Promise, frozen=True, strict=True):
    """What was picked so that a run ends in promised hours."""


class PlanFacts(Facts):
    """The plan in train/metrics.json."""

    hours: PlannedHours
    promise: PromiseFacts | None = None
    events: dict[str, float] = {}
    micro_batch_seconds: float = 0.0
    world_size: int = 1
    useful_token_fraction: float | None = None
    arithmetic_per_useful_token: float | None = None
    tokens_per_second: float | None = None
    replies_per_second: float | None = None
    writing_share: float = 1.0
    peak_memory_gib: float | None = None


class TrainingFacts(Facts):
    """train/metrics.json."""

    base_model: str
    trainable_parameters: int
    backend: str
    dtype: str
    optimizer_steps: int
    effective_batch: float
    epochs: float
    plan: PlanFacts | None = None
    seconds: dict[str, float] = {}
    events: dict[str, float] = {}
    micro_batches: int = 0
    micro_batch_limit: int | None = None
    useful_token_fraction: float | None = None
    arithmetic_per_useful_token: float | None = None
    tokens_per_second: float | None = None
    peak_memory_gib: float | None = None
    hours: float = 0.0


class GroupFacts(Comparison, extra="allow", frozen=True):
    """A group of rows with its own comparison."""

    label: str
    n: int


class CategoryFacts(Facts):
    """The fixed prompts of one category."""

    category: str
    n: int
    base: float = Field(alias="base unsafe")
    tuned: float = Field(alias="tuned unsafe")


class PromptFacts(Facts):
    """The scores of the fixed prompts."""

    n: int = 0
    categories: list[CategoryFacts] = []


class BenchmarkRow(Facts):
    """A public benchmark's metric of both models."""

    task: str
    metric: str
    lm_eval: str
    base: float
    tuned: float
    delta: float
    delta_stderr: float | None


class SkippedBenchmark(Facts):
    """A public benchmark that was not measured."""

    task: str
    why: str


class BenchmarkFacts(Facts):
    """The public benchmarks."""

    limit: int = 0
    tasks: list[BenchmarkRow] = []
    skipped: list[SkippedBenchmark] = []


class PreferenceFacts(Facts):
    """What the preferred model was compared on, and how far it is from the tuned one."""

    n: int
    left_out: int = 0
    tuned: dict[str, Score] = {}
    drift: Drift | None = None


class PreferPlan(Facts):
    """The plan in prefer/metrics.json."""

    hours: dict[str, float]
    optimizer_steps: int = 0
    peak_memory_gib: float | None = None


class PreferFacts(Facts):
    """prefer/metrics.json."""

    method: str = ""
    plan: PreferPlan | None = None
    seconds: dict[str, float] = {}
    optimizer_steps: int = 0
    peak_memory_gib: float | None = None
    used_test_ids: list[str] = []
    train: int = 0
    val: int = 0
    held_out: dict[str, Any] = {}


class EvaluationFacts(Comparison, extra="allow", frozen=True):
    """evaluate/metrics.json."""

    n: int
    decoding: str = ""
    max_new_tokens: int = 0
    seed: int = 0
    tokenizer: str = ""
    topics: list[GroupFacts] = []
    lengths: list[GroupFacts] = []
    prompts: PromptFacts = PromptFacts()
    verdict: Verdict | None = None
    meaning: dict[str, Any] = {}
    benchmarks: BenchmarkFacts = BenchmarkFacts()
    judge: dict[str, Any] = {}  # words: ok - its name in the file
    replies_per_second: dict[str, float] = {}
    seconds: dict[str, float] = {}
    processes: int = 0
    preferred: dict[str, Score] = {}
    delta_preferred: dict[str, Score] = {}
    preferred_verdict: PreferredVerdict | None = None
    preference: PreferenceFacts = PreferenceFacts(n=0)


class BestFacts(Facts):
    """The best candidate of a search: tune/best.json."""

    candidate: int
    settings: dict[str, Any]
    importance: dict[str, float] | None = None


class SearchFacts(Facts):
    """tune/metrics.json."""

    candidates: int
    eliminated: int
    failed: int
    best: BestFacts


class LogEntry(Facts):
    """A line of train/log.jsonl."""

    step: float = 0.0
    epoch: float = 0.0
    loss: float = 0.0
    eval_loss: float = 0.0
    learning_rate: float = 0.0


class AnsweredRow(Facts):
    """A line of evaluate/base.jsonl and tuned.jsonl."""

    id: str
    prompt: str
    reference: str
    reply: str
    new_tokens: int = 0


class Reply(Facts):
    """A line of infer/replies.jsonl."""

    prompt: str
    base: str
    tuned: str
    preferred: str = ""


class JudgedRow(Facts):
    """A line of evaluate/judge.jsonl: a language model's marks of one reply."""

    rater: str
    id: str
    order: int
    side: str
    preferred: float = 0.5
    relevance: float = 3.0
    empathy: float = 3.0
    safety: float = 3.0
    fluency: float = 3.0
    helpfulness: float = 3.0
    correctness: float = 3.0  # of earlier versions


class RowScores(BaseModel):
    """A line of evaluate/scores.csv, whose replies were scored."""

    base_chrf: float
    tuned_chrf: float


class Trial(BaseModel):
    """A line of tune/trials.csv."""

    candidate: int
    status: str


METRICS = {
    "prepare_data": DataFacts,
    "train": TrainingFacts,
    "prefer": PreferFacts,
    "evaluate": EvaluationFacts,
    "tune": SearchFacts,
}

"""What the tests of Kaggle share."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def account(tmp_path_factory):
    """An account in the environment, none in a file; short waits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KAGGLE_USERNAME", "someone")
        patch.setenv("KAGGLE_KEY", "not a key")
        patch.delenv("KAGGLE_API_TOKEN", raising=False)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr("helpers.kaggle.client.FIRST_WAIT", 0.01)
        patch.setattr("helpers.kaggle.client.LONGEST_WAIT", 0.05)
        yield

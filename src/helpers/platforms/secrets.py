"""Tokens, from the environment or the platform's own store; never from a parameter."""

import contextlib
import os

from helpers.platforms.errors import describe_error
from helpers.platforms.machine import platform
from helpers.platforms.scrub import remember_secret


def read_secret(name: str) -> str:
    """Returns a token from the environment, else from Kaggle's or Colab's secrets. Raises ValueError without one."""
    if os.environ.get(name):
        return remember_secret(os.environ[name])
    try:
        if platform() == "kaggle":
            from kaggle_secrets import UserSecretsClient  # pyright: ignore[reportMissingImports]

            return remember_secret(UserSecretsClient().get_secret(name))
        if platform() == "colab":
            from google.colab import userdata  # pyright: ignore[reportMissingImports]

            return remember_secret(userdata.get(name))
    except Exception as error:  # each platform has its own
        raise ValueError(
            f"the secret {name} could not be read ({describe_error(error)}): add it under Secrets."
        ) from error
    raise ValueError(f"{name} is not set: put the token into the environment.")


def export_secrets() -> None:
    """Puts the tokens for downloads that are among the platform's secrets into the environment.

    The Hub's and Kaggle's libraries read them there, in child processes too, which cannot ask the platform.
    """
    for name in ("HF_TOKEN", "KAGGLE_API_TOKEN") if platform() != "local" else ():
        with contextlib.suppress(ValueError):  # no such secret
            os.environ[name] = read_secret(name)

"""Generators on the Hugging Face Hub, and copies of their folders."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cyclegan import __version__
from cyclegan.artifacts.generator import CONFIG, WEIGHTS, new_folder, read_config
from cyclegan.artifacts.model_card import EXAMPLES, METRICS, MODEL_CARD
from cyclegan.errors import BadInput

# All that is ever taken from a repository or brought there: nothing in it is code.
FILES = (CONFIG, WEIGHTS, MODEL_CARD, METRICS, EXAMPLES)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def locate(generator: str | Path) -> Path:
    """The folder or file that is meant; what is not there and looks like ``owner/name`` comes from the Hub.

    Raises:
        BadInput: the Hub has no such generator, or cannot be asked.
    """
    path, name = Path(generator), str(generator)
    # A name under a folder that is here is a mistyped path, and nobody else's business.
    on_hub = _HUB_ID.fullmatch(name) and not path.exists() and not path.parent.exists()
    return _download(name) if on_hub and path.suffix != ".onnx" else path


def _download(repo_id: str) -> Path:
    from huggingface_hub import snapshot_download

    with _one_line(repo_id):
        return Path(
            snapshot_download(
                repo_id, allow_patterns=list(FILES), library_name="cyclegan", library_version=__version__
            )
        )


def upload(folder: Path, repo_id: str, private: bool, token: str | None) -> str:
    """Bring a generator's files to a repository, made when it is not there yet; returns its address."""
    from huggingface_hub import HfApi

    read_config(folder)
    api = HfApi(token=token, library_name="cyclegan", library_version=__version__)
    with _one_line(repo_id):
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=list(FILES),
            commit_message="Upload a cyclegan generator",
        )
    return str(address)


def copy_generator(folder: Path, target: Path) -> None:
    """A second folder with the same generator, whole or not at all."""
    read_config(folder)
    with new_folder(target) as partial:
        for name in FILES:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, partial / name)


@contextmanager
def _one_line(repo_id: str) -> Iterator[None]:
    """All the ways in which the Hub can refuse, or not be there, in one line."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise BadInput(f"{repo_id}: its owner wants to be asked first; see its page on the Hub") from error
    except RepositoryNotFoundError as error:
        raise BadInput(
            f"{repo_id}: no such folder, and no such public model on the Hugging Face Hub "
            "(for a private one, 'hf auth login' first)"
        ) from error
    except LocalTokenNotFoundError as error:
        raise BadInput(f"{repo_id}: the Hub wants to know who you are; 'hf auth login' first") from error
    except HFValidationError as error:
        raise BadInput(f"{repo_id}: is not a name of the Hub, which look like owner/name") from error
    except HfHubHTTPError as error:
        raise BadInput(f"{repo_id}: the Hub refuses ({' '.join(str(error).split())})") from error
    except Exception as error:  # offline; the errors of its HTTP library differ between its versions
        raise BadInput(
            f"{repo_id}: no such folder, and the Hugging Face Hub cannot be reached ({type(error).__name__})"
        ) from error

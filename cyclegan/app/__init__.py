"""A page on this machine for people, and the same over HTTP for programs: a face over the commands."""

import os

# Before anything imports gradio: it would tell its maker of each start.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

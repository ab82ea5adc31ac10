"""Refuses jobs that run longer than an hour."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import config, types

# Longest time limit in seconds, unless the site sets max-seconds.
MAX_SECONDS = 3600

settings = {"max": MAX_SECONDS}


class Plugin(exports.Plugin):
    def configure(self) -> None:
        settings["max"] = json.loads(config.args()).get("max-seconds", MAX_SECONDS)


class Validation(exports.Validation):
    def validate(self, job) -> None:
        duration = json.loads(job.attribute("attributes.system.duration") or "0")
        if duration == 0 or duration > settings["max"]:
            raise Err(types.Refusal(22, f"time limit must be above 0 and at most {settings['max']} s"))

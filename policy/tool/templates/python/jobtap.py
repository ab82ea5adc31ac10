"""Lets each user have a few active jobs, and no more."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import course
from wit_world.imports import config, types

# Active jobs that a user may have, unless the site sets max-jobs.
MAX_JOBS = 2

settings = {"max": MAX_JOBS}
# Active jobs of each user.
active = {}


class Plugin(exports.Plugin):
    def configure(self) -> None:
        settings["max"] = json.loads(config.args()).get("max-jobs", MAX_JOBS)


class Callbacks(exports.Callbacks):
    def init(self):
        # only what is named here is called
        return ["job.validate", "job.new", "job.state.inactive"]


class Admission(exports.Admission):
    def validate(self, job) -> None:
        if len(active.get(job.userid(), ())) >= settings["max"]:
            raise Err(types.Refusal(22, f"you may have at most {settings['max']} active jobs"))

    def new_job(self, job, replay: bool) -> None:
        # after a restart of the broker, and after a crash of this plugin, all active jobs come again
        active.setdefault(job.userid(), set()).add(job.id())

    def create(self, job, replay: bool) -> None:
        pass

    def dependency(self, job, scheme: str, entry: str, target, replay: bool) -> None:
        pass

    def destroy(self, job) -> None:
        pass


class Course(exports.Course):
    def state(self, job, state: str) -> None:
        active.get(job.userid(), set()).discard(job.id())

    def event(self, job, name: str, entry: str) -> None:
        pass

    def priority(self, job) -> course.Answer:
        return course.Answer_Pass()

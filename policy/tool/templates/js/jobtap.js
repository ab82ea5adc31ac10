// Lets each user have a few active jobs, and no more.

import { args } from 'flux:policy/config@0.1.0';

// Active jobs that a user may have, unless the site sets max-jobs.
const MAX_JOBS = 2;

let maxJobs = MAX_JOBS;
// Active jobs of each user.
const active = new Map();

function jobsOf(job) {
  if (!active.has(job.userid())) {
    active.set(job.userid(), new Set());
  }
  return active.get(job.userid());
}

export const plugin = {
  configure() {
    maxJobs = JSON.parse(args())['max-jobs'] ?? MAX_JOBS;
  },
};

export const callbacks = {
  // only what is named here is called
  init() {
    return ['job.validate', 'job.new', 'job.state.inactive'];
  },
};

export const admission = {
  validate(job) {
    if (jobsOf(job).size >= maxJobs) {
      throw { errnum: 22, text: `you may have at most ${maxJobs} active jobs` };
    }
  },
  // after a restart of the broker, and after a crash of this plugin, all active jobs come again
  newJob(job, replay) {
    jobsOf(job).add(job.id());
  },
  create(job, replay) {},
  dependency(job, scheme, entry, target, replay) {},
  destroy(job) {},
};

export const course = {
  state(job, state) {
    jobsOf(job).delete(job.id());
  },
  event(job, name, entry) {},
  priority(job) {
    return { tag: 'pass' };
  },
};

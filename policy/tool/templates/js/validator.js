// Refuses jobs that run longer than an hour.

import { args } from 'flux:policy/config@0.1.0';

// Longest time limit in seconds, unless the site sets max-seconds.
const MAX_SECONDS = 3600;

let maxSeconds = MAX_SECONDS;

export const plugin = {
  configure() {
    maxSeconds = JSON.parse(args())['max-seconds'] ?? MAX_SECONDS;
  },
};

export const validation = {
  validate(job) {
    const duration = JSON.parse(job.attribute('attributes.system.duration') ?? '0');
    if (duration === 0 || duration > maxSeconds) {
      throw { errnum: 22, text: `time limit must be above 0 and at most ${maxSeconds} s` };
    }
  },
};

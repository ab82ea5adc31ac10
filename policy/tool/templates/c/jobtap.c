/* Lets each user have a few active jobs, and no more. */

#include <stdlib.h>
#include <string.h>

#include "policy.h"

/* Active jobs that a user may have. */
#define MAX_JOBS 2

/* What users read. */
#define MESSAGE "you may have at most 2 active jobs"

struct active {
    uint64_t id;
    uint32_t userid;
};

static struct active *jobs;
static size_t count;
static size_t room;

bool exports_flux_policy_plugin_configure (exports_flux_policy_plugin_refusal_t *err)
{
    return true;
}

/* Only what is named here is called. */
void exports_flux_policy_callbacks_init (policy_list_string_t *ret)
{
    static const char *wanted[] = { "job.validate", "job.new", "job.state.inactive" };
    ret->len = sizeof (wanted) / sizeof (wanted[0]);
    ret->ptr = malloc (ret->len * sizeof (policy_string_t));
    for (size_t i = 0; i < ret->len; i++)
        policy_string_dup (&ret->ptr[i], wanted[i]);
}

bool exports_flux_policy_admission_validate (exports_flux_policy_admission_borrow_job_t job,
                                             exports_flux_policy_admission_refusal_t *err)
{
    uint32_t userid = flux_policy_jobs_method_job_userid (job);
    size_t active = 0;

    /* a job that was received is given back before the function returns */
    flux_policy_jobs_job_drop_borrow (job);
    for (size_t i = 0; i < count; i++)
        active += jobs[i].userid == userid;
    if (active < MAX_JOBS)
        return true;
    err->errnum = 22;
    policy_string_dup (&err->text, MESSAGE);
    return false;
}

/* After a restart of the broker, and after a crash of this plugin, all active jobs come again. */
void exports_flux_policy_admission_new_job (exports_flux_policy_admission_borrow_job_t job, bool replay)
{
    uint64_t id = flux_policy_jobs_method_job_id (job);
    uint32_t userid = flux_policy_jobs_method_job_userid (job);

    flux_policy_jobs_job_drop_borrow (job);
    for (size_t i = 0; i < count; i++) {
        if (jobs[i].id == id)
            return;
    }
    if (count == room) {
        room = room ? 2 * room : 16;
        /* without memory this traps: the plugin is rebuilt, the job is not lost */
        if (!(jobs = realloc (jobs, room * sizeof (*jobs))))
            abort ();
    }
    jobs[count++] = (struct active){ id, userid };
}

void exports_flux_policy_course_state (exports_flux_policy_course_borrow_job_t job, policy_string_t *state)
{
    uint64_t id = flux_policy_jobs_method_job_id (job);

    flux_policy_jobs_job_drop_borrow (job);
    for (size_t i = 0; i < count; i++) {
        if (jobs[i].id == id) {
            jobs[i] = jobs[--count];
            break;
        }
    }
    policy_string_free (state);
}

/* What is not wanted above is never called. */
bool exports_flux_policy_admission_create (exports_flux_policy_admission_borrow_job_t job,
                                           bool replay,
                                           exports_flux_policy_admission_refusal_t *err)
{
    flux_policy_jobs_job_drop_borrow (job);
    return true;
}

bool exports_flux_policy_admission_dependency (exports_flux_policy_admission_borrow_job_t job,
                                               policy_string_t *scheme,
                                               policy_string_t *entry,
                                               exports_flux_policy_admission_borrow_job_t *maybe_target,
                                               bool replay,
                                               exports_flux_policy_admission_refusal_t *err)
{
    flux_policy_jobs_job_drop_borrow (job);
    if (maybe_target)
        flux_policy_jobs_job_drop_borrow (*maybe_target);
    policy_string_free (scheme);
    policy_string_free (entry);
    return true;
}

void exports_flux_policy_admission_destroy (exports_flux_policy_admission_borrow_job_t job)
{
    flux_policy_jobs_job_drop_borrow (job);
}

void exports_flux_policy_course_event (exports_flux_policy_course_borrow_job_t job,
                                       policy_string_t *name,
                                       policy_string_t *entry)
{
    flux_policy_jobs_job_drop_borrow (job);
    policy_string_free (name);
    policy_string_free (entry);
}

void exports_flux_policy_course_priority (exports_flux_policy_course_borrow_job_t job,
                                          exports_flux_policy_course_answer_t *ret)
{
    flux_policy_jobs_job_drop_borrow (job);
    ret->tag = EXPORTS_FLUX_POLICY_COURSE_ANSWER_PASS;
}

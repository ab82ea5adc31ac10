/* Refuses jobs that run longer than an hour. */

#include <stdlib.h>
#include <string.h>

#include "policy.h"

/* Longest time limit in seconds, unless the site sets max-seconds. */
#define MAX_SECONDS 3600

#define MESSAGE "time limit must be above 0 and at most "

static double max_seconds = MAX_SECONDS;

/* Returns text as a string that ends with 0; the caller frees it. */
static char *text_of (policy_string_t *string)
{
    char *text = malloc (string->len + 1);
    memcpy (text, string->ptr, string->len);
    text[string->len] = '\0';
    policy_string_free (string);
    return text;
}

/* Appends a whole number to text. */
static void append_number (char *text, long number)
{
    char digits[24];
    int at = sizeof (digits);
    do {
        digits[--at] = '0' + number % 10;
        number /= 10;
    } while (number > 0);
    strncat (text, digits + at, sizeof (digits) - at);
}

bool exports_flux_policy_plugin_configure (exports_flux_policy_plugin_refusal_t *err)
{
    policy_string_t args;
    const char *key = "\"max-seconds\":";

    flux_policy_config_args (&args);
    char *text = text_of (&args);
    char *found = strstr (text, key);
    max_seconds = found ? strtod (found + strlen (key), NULL) : MAX_SECONDS;
    free (text);
    return true;
}

bool exports_flux_policy_validation_validate (exports_flux_policy_validation_borrow_job_t job,
                                              exports_flux_policy_validation_refusal_t *err)
{
    policy_string_t path, value;
    double duration = 0;

    policy_string_set (&path, "attributes.system.duration");
    if (flux_policy_jobs_method_job_attribute (job, &path, &value)) {
        char *text = text_of (&value);
        duration = strtod (text, NULL);
        free (text);
    }
    /* a job that was received is given back before the function returns */
    flux_policy_jobs_job_drop_borrow (job);
    if (duration > 0 && duration <= max_seconds)
        return true;
    char message[128] = MESSAGE;
    append_number (message, (long)max_seconds);
    strcat (message, " s");
    err->errnum = 22;
    policy_string_dup (&err->text, message);
    return false;
}

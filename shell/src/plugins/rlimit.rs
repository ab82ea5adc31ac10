//! How do the resource limits of the job reach its tasks? (shell option `rlimit`)

use flux_process::rlimit::{self, INFINITY, Limit, Resource};
use serde_json::Value;

use crate::ctx::Ctx;
use crate::log::log;

/// Sets the limits in the shell, from which the tasks inherit them. A limit that cannot be set is told and left.
pub(crate) fn apply(ctx: &mut Ctx) {
    let Some(Value::Object(limits)) = ctx.info.options.get("rlimit").cloned() else {
        return;
    };
    for (name, value) in &limits {
        let Some(resource) = Resource::from_name(name) else {
            log!(ctx, Warn, "rlimit", "invalid option: {name}");
            continue;
        };
        let wanted = match value.as_i64() {
            Some(-1) => INFINITY,
            Some(number) => u64::try_from(number).unwrap_or(INFINITY),
            None => match value.as_u64() {
                Some(number) => number,
                None => {
                    log!(ctx, Warn, "rlimit", "invalid value {value} for {name}");
                    continue;
                }
            },
        };
        set(ctx, name, resource, wanted);
    }
}

fn set(ctx: &mut Ctx, name: &str, resource: Resource, wanted: u64) {
    let hard = match rlimit::get(resource) {
        Ok(limit) if limit.soft == wanted => return,
        Ok(limit) => limit.hard,
        Err(error) => {
            log!(
                ctx,
                Error,
                "rlimit",
                "getrlimit {name}: {}",
                crate::errno_text(&error)
            );
            return;
        }
    };
    let mut soft = wanted;
    if soft > hard {
        log!(
            ctx,
            Warn,
            "rlimit",
            "{name} exceeds current max, raising value to hard limit"
        );
        soft = hard;
    }
    if let Err(error) = rlimit::set(resource, Limit { soft, hard }) {
        log!(
            ctx,
            Error,
            "rlimit",
            "setrlimit {name}: {}",
            crate::errno_text(&error)
        );
    }
}

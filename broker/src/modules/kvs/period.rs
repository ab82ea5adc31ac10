//! How often is the root checkpointed without anybody asking? `kvs.checkpoint-period`, when it is set.

use super::Kvs;
use super::service::PRIMARY;
use crate::service::{Cx, RpcError, TimerId};
use flux_formats::errno;
use flux_formats::fsd::Fsd;
use serde_json::Value;
use std::time::Duration;

/// The running timer and what it has seen.
#[derive(Debug, Default)]
pub(super) struct Period {
    every: Option<Duration>,
    timer: Option<TimerId>,
    /// Version of the primary namespace at the last checkpoint made here.
    seen: u64,
}

/// Reads the key of a configuration; a duration of 0 is none.
///
/// # Errors
/// EINVAL for anything but a Flux Standard Duration.
pub(super) fn read(config: &Value) -> Result<Option<Duration>, RpcError> {
    let Some(value) = config.pointer("/kvs/checkpoint-period") else {
        return Ok(None);
    };
    let period = value.as_str().and_then(|text| text.parse::<Fsd>().ok());
    match period {
        Some(period) => Ok(period.to_duration().filter(|period| !period.is_zero())),
        None => Err(RpcError::new(
            errno::EINVAL,
            format!("kvs.checkpoint-period: {value} is not a duration such as \"30m\""),
        )),
    }
}

impl Kvs {
    /// Takes a period and begins to wait.
    pub(super) fn set_period(&mut self, cx: &mut Cx<'_>, every: Option<Duration>) {
        if let Some(timer) = self.period.timer.take() {
            cx.cancel_timer(timer);
        }
        self.period.every = every;
        self.wait_for_period(cx);
    }

    fn wait_for_period(&mut self, cx: &mut Cx<'_>) {
        let Some(every) = self.period.every else { return };
        self.period.timer = Some(cx.timer(every, |kvs: &mut Kvs, cx| {
            let version = kvs.spaces.get(PRIMARY).map_or(0, |space| space.seq);
            if kvs.is_restored() && version != kvs.period.seen {
                kvs.period.seen = version;
                kvs.checkpoint(cx);
            }
            kvs.wait_for_period(cx);
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values() {
        let of = |value: Value| read(&json!({ "kvs": { "checkpoint-period": value } }));
        assert_eq!(read(&json!({})).unwrap(), None);
        assert_eq!(of(json!("5s")).unwrap(), Some(Duration::from_secs(5)));
        assert_eq!(of(json!("0")).unwrap(), None);
        assert_eq!(of(json!("infinity")).unwrap(), None);
        assert!(of(json!("soon")).unwrap_err().text.contains("\"soon\""));
        assert!(of(json!(5)).is_err());
    }
}

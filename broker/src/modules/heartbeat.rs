//! Service `heartbeat`: who gives the instance its pulse? Rank 0 publishes `heartbeat.pulse` every period; the others
//! leave a parent from which it has not come for too long (flux-core: modules/heartbeat, behaviour).

use crate::service::{Cx, Interface, RpcError, Service, TimerId};
use flux_formats::errno;
use flux_formats::fsd::Fsd;
use flux_formats::msg::Message;
use serde_json::{Value, json};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The `heartbeat` module.
#[derive(Debug)]
pub struct Heartbeat {
    period: Duration,
    timeout: Duration,
    warn_thresh: u64,
    count: u64,
    timer: Option<TimerId>,
    /// When a follower heard the last pulse.
    heard: Option<Instant>,
    /// The log says that the pulse does not come.
    overdue: bool,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Heartbeat {
            period: Duration::from_secs(2),
            timeout: Duration::from_secs(300),
            warn_thresh: 3,
            count: 0,
            timer: None,
            heard: None,
            overdue: false,
        }
    }
}

impl Heartbeat {
    fn configure(&mut self, config: &Value) -> Result<(), RpcError> {
        let Some(table) = config.get("heartbeat") else {
            return Ok(());
        };
        let duration = |name: &str, old: Duration| match table.get(name) {
            None => Ok(old),
            Some(value) => value
                .as_str()
                .and_then(|text| text.parse::<Fsd>().ok())
                .and_then(|fsd| fsd.to_duration())
                .filter(|d| !d.is_zero())
                .ok_or_else(|| {
                    RpcError::new(
                        errno::EINVAL,
                        format!("heartbeat.{name}: {value} is not a positive duration (FSD)"),
                    )
                }),
        };
        let period = duration("period", self.period)?;
        let timeout = match table.get("timeout").and_then(Value::as_str) {
            Some("0" | "infinity" | "inf" | "none") => Duration::MAX,
            _ => duration("timeout", self.timeout)?,
        };
        if timeout < period.saturating_mul(2) {
            return Err(RpcError::new(
                errno::EINVAL,
                "heartbeat.timeout must be >= 2*heartbeat.period, infinity, or 0",
            ));
        }
        if let Some(value) = table.get("warn_thresh") {
            self.warn_thresh = value.as_u64().ok_or_else(|| {
                RpcError::new(
                    errno::EINVAL,
                    format!("heartbeat.warn_thresh: {value} is not a count"),
                )
            })?;
        }
        (self.period, self.timeout) = (period, timeout);
        Ok(())
    }

    fn pulse(&mut self, cx: &mut Cx<'_>) {
        self.count += 1;
        cx.publish_message(Message::event(
            flux_formats::msg::Topic::from_static("heartbeat.pulse"),
            None,
        ));
        self.timer = Some(cx.timer(self.period, |me: &mut Heartbeat, cx| me.pulse(cx)));
    }
}

impl Heartbeat {
    /// A follower looks whether the leader's pulse still comes: a parent that does not pass it on is of no use.
    fn check_pulse(&mut self, cx: &mut Cx<'_>) {
        let silence = self.heard.map_or(Duration::ZERO, |heard| heard.elapsed());
        let patience = self
            .period
            .saturating_mul(u32::try_from(self.warn_thresh).unwrap_or(u32::MAX));
        let overdue = silence > patience;
        if overdue != self.overdue {
            self.overdue = overdue;
            let text = if overdue {
                "heartbeat overdue"
            } else {
                "heartbeat received"
            };
            cx.log_as_me(4, text);
        }
        if silence > self.timeout {
            let reason = format!("no heartbeat for {}", Fsd::from(silence));
            let req = cx.request_any("overlay.disconnect-parent", &json!({ "reason": reason }));
            cx.notify(req);
            self.heard = None;
            return;
        }
        self.timer = Some(cx.timer(self.period, |me: &mut Heartbeat, cx| me.check_pulse(cx)));
    }
}

impl Service for Heartbeat {
    fn interfaces(&self) -> Vec<Interface> {
        vec![Interface {
            service: "heartbeat",
            methods: &[],
        }]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        let config = cx.config.clone();
        self.configure(&config)?;
        if cx.rank() == 0 {
            self.timer = Some(cx.timer(self.period, |me: &mut Heartbeat, cx| me.pulse(cx)));
        } else {
            cx.subscribe("heartbeat.pulse");
            self.heard = Some(Instant::now());
            self.timer = Some(cx.timer(self.period, |me: &mut Heartbeat, cx| me.check_pulse(cx)));
        }
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        cx.fail(&req, errno::ENOSYS, "");
    }

    fn on_event(&mut self, _cx: &mut Cx<'_>, _event: &Message) {
        self.count += 1;
        self.heard = Some(Instant::now());
    }

    fn stats(&mut self, _cx: &mut Cx<'_>) -> Option<Value> {
        Some(json!({
            "period": self.period.as_secs_f64(), "timeout": self.timeout.as_secs_f64(),
            "count": self.count, "warn_thresh": self.warn_thresh,
        }))
    }

    fn config_prepare(&mut self, _cx: &mut Cx<'_>, config: &Rc<Value>) -> Result<(), RpcError> {
        Heartbeat::default().configure(config)
    }

    fn config_commit(&mut self, cx: &mut Cx<'_>) {
        let config = cx.config.clone();
        // prepare has accepted it
        drop(self.configure(&config));
    }

    fn stop(&mut self, cx: &mut Cx<'_>) -> bool {
        if let Some(timer) = self.timer.take() {
            cx.cancel_timer(timer);
        }
        true
    }
}

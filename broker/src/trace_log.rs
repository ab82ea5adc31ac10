//! How do `tracing` events of libraries (overlay, policies) get into the broker's log? Through a bounded queue.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Lines waiting for the hub. Filled by libraries on any thread between two turns; more are counted and dropped.
const QUEUE_MAX: usize = 256;

static QUEUE: Mutex<VecDeque<(u8, String, String)>> = Mutex::new(VecDeque::new());
static DROPPED: AtomicU64 = AtomicU64::new(0);
static LEVEL: OnceLock<Level> = OnceLock::new();

/// Keeps events up to a level; spans are not kept.
#[derive(Debug)]
struct QueueSubscriber;

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0.push_str(&format!("{value:?}"));
        } else {
            self.0.push_str(&format!(" {}={value:?}", field.name()));
        }
    }
}

/// Returns the syslog severity of a tracing level.
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

impl Subscriber for QueueSubscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.level() <= LEVEL.get().unwrap_or(&Level::WARN)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let target = event.metadata().target();
        let name = target
            .split("::")
            .next()
            .unwrap_or(target)
            .trim_start_matches("flux_")
            .to_owned();
        let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() < QUEUE_MAX {
            queue.push_back((severity(*event.metadata().level()), name, text.0));
        } else {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Begins to keep events; with `debug` also those of level debug.
pub fn install(debug: bool) {
    let level = if debug { Level::DEBUG } else { Level::WARN };
    if LEVEL.set(level).is_ok() {
        // a subscriber that somebody else installed in this process stays
        drop(tracing::subscriber::set_global_default(QueueSubscriber));
    }
}

/// Takes what was logged since the last call: (severity, name, text).
pub fn take() -> Vec<(u8, String, String)> {
    let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut lines: Vec<_> = queue.drain(..).collect();
    drop(queue);
    let dropped = DROPPED.swap(0, Ordering::Relaxed);
    if dropped > 0 {
        lines.push((
            4,
            "broker".to_owned(),
            format!("{dropped} log lines were dropped: too many at once"),
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    #[test]
    fn events_are_queued_with_fields() {
        super::install(false);
        tracing::warn!(rank = 3, "peer is slow");
        tracing::debug!("not kept");
        let lines = super::take();
        assert!(
            lines.contains(&(4, "broker".to_owned(), "peer is slow rank=3".to_owned())),
            "{lines:?}"
        );
    }
}

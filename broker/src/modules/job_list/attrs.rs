//! How is a job written for a list? Only the attributes asked for, in the order of the original.

use super::view::{Dependencies, View};
use crate::service::RpcError;
use flux_formats::errno;
use flux_formats::jobstate::JobResult;
use flux_formats::rpc::job_list::ATTRIBUTES;
use std::io::Write;

/// The attributes that a request asks for: bit `i` stands for [`ATTRIBUTES`]`[i]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attrs(u32);

impl Attrs {
    /// No attribute but the id.
    pub(super) const NONE: Attrs = Attrs(0);

    /// Reads a request's list.
    ///
    /// # Errors
    /// EINVAL with the name that is no attribute.
    pub(super) fn parse(names: &[String]) -> Result<Self, RpcError> {
        let mut mask = 0;
        for name in names {
            match ATTRIBUTES.iter().position(|known| known == name) {
                Some(at) => mask |= 1 << at,
                None if name == "all" => mask = u32::MAX,
                None if name == "id" => {}
                None => {
                    return Err(RpcError::new(
                        errno::EINVAL,
                        format!("{name} is not a valid attribute"),
                    ));
                }
            }
        }
        Ok(Attrs(mask))
    }

    fn has(self, at: usize) -> bool {
        self.0 & (1 << at) != 0
    }
}

/// Writes one JSON object member by member.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    attrs: Attrs,
    at: usize,
}

impl Object<'_> {
    /// Begins the next attribute; returns true when it is wanted and `present`.
    fn next(&mut self, present: bool) -> bool {
        let at = self.at;
        self.at += 1;
        if !present || !self.attrs.has(at) {
            return false;
        }
        self.out.extend_from_slice(b",\"");
        self.out
            .extend_from_slice(ATTRIBUTES.get(at).copied().unwrap_or_default().as_bytes());
        self.out.extend_from_slice(b"\":");
        true
    }

    fn integer(&mut self, value: Option<i64>) {
        if self.next(value.is_some()) {
            write(self.out, format_args!("{}", value.unwrap_or(0)));
        }
    }

    fn real(&mut self, value: Option<f64>) {
        if self.next(value.is_some()) {
            write(self.out, format_args!("{:?}", value.unwrap_or(0.0)));
        }
    }

    fn text(&mut self, value: Option<&str>) {
        if self.next(value.is_some()) {
            push_string(self.out, value.unwrap_or_default());
        }
    }

    fn truth(&mut self, value: Option<bool>) {
        if self.next(value.is_some()) {
            self.out
                .extend_from_slice(if value == Some(true) { b"true" } else { b"false" });
        }
    }

    fn json(&mut self, value: Option<&str>) {
        if self.next(value.is_some()) {
            self.out.extend_from_slice(value.unwrap_or("null").as_bytes());
        }
    }
}

fn write(out: &mut Vec<u8>, args: std::fmt::Arguments<'_>) {
    // a Vec takes everything
    if let Err(err) = out.write_fmt(args) {
        tracing::error!(err = %err, "job attribute not written");
    }
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|c| c >= 0x20 && c != b'"' && c != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else if let Err(err) = serde_json::to_writer(&mut *out, text) {
        tracing::error!(err = %err, "job attribute not written");
    }
}

fn time(value: f64) -> Option<f64> {
    Some(value).filter(|value| *value > 0.0)
}

/// Appends the job as a JSON object.
pub(super) fn encode(out: &mut Vec<u8>, job: &View<'_>, attrs: Attrs) {
    write(out, format_args!("{{\"id\":{}", job.id.0));
    let mut object = Object { out, attrs, at: 0 };
    object.integer(Some(i64::from(job.userid)));
    object.integer(Some(i64::from(job.urgency)));
    object.integer(Some(job.priority).filter(|priority| *priority >= 0));
    object.real(Some(job.t_submit));
    for value in [
        job.t_depend,
        job.t_priority,
        job.t_sched,
        job.t_run,
        job.t_cleanup,
        job.t_inactive,
    ] {
        object.real(time(value));
    }
    object.integer(Some(i64::from(job.state.bit())));
    object.text(Some(job.name));
    object.text(job.cwd);
    object.text(job.queue);
    object.text(job.project);
    object.text(job.bank);
    object.integer(Some(i64::from(job.ntasks)));
    object.integer(Some(i64::from(job.ncores)).filter(|n| *n > 0));
    object.real(Some(job.duration));
    object.integer(Some(i64::from(job.nnodes)).filter(|n| *n > 0));
    object.text(job.place.map(|place| place.ranks));
    object.text(job.place.map(|place| place.nodelist));
    object.truth(job.result.map(|result| result == JobResult::Completed));
    let fault = job.fault.filter(|_| job.is_inactive());
    object.truth(job.is_inactive().then_some(fault.is_some()));
    object.text(fault.map(|fault| fault.kind));
    object.integer(fault.map(|fault| i64::from(fault.severity)));
    object.text(fault.map(|fault| fault.note));
    object.integer(job.result.map(|result| i64::from(result.bit())));
    object.real(job.place.map(|_| job.expiration));
    object.json(job.annotations);
    object.integer(job.waitstatus.map(i64::from));
    match job.dependencies {
        Dependencies::None => object.json(None),
        Dependencies::List(list) => object.json(serde_json::to_string(list).ok().as_deref()),
        Dependencies::Text(text) => object.json(Some(text)),
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::super::apply::tests::{job, life};
    use super::super::job::Job;
    use super::*;
    use serde_json::Value;

    fn text(job: &Job, names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut out = Vec::new();
        encode(&mut out, &job.view(), Attrs::parse(&names).unwrap());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn order_of_the_original() {
        let all = text(&job(42, &life()), &["all"]);
        let value: Value = serde_json::from_str(&all).unwrap();
        let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys.join(" "),
            "id userid urgency priority t_submit t_depend t_priority t_sched t_run t_cleanup t_inactive state name cwd \
             ntasks ncores duration nnodes ranks nodelist success exception_occurred result expiration annotations \
             waitstatus"
        );
        assert_eq!(
            value["annotations"]["sched"]["resource_summary"],
            "rank1/core[0-3]"
        );
    }

    #[test]
    fn only_what_is_asked_for() {
        let pending = job(42, &[]);
        assert_eq!(
            text(&pending, &["name", "state", "ranks", "result"]),
            r#"{"id":42,"state":1,"name":"sleep"}"#
        );
        assert!(
            Attrs::parse(&["nope".to_owned()])
                .unwrap_err()
                .text
                .contains("nope")
        );
    }
}

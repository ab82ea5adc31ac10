//! Which events does a job have, and how is each written to and read from its eventlog? (RFC 21 "Events")

use super::state::Kind;
use flux_formats::eventlog::{self, EventRef, EventlogError};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// An event with its context.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    Submit {
        userid: u32,
        urgency: u8,
        flags: u32,
    },
    Validate,
    Invalidate,
    DependencyAdd {
        description: String,
    },
    DependencyRemove {
        description: String,
    },
    Depend,
    Priority {
        priority: u64,
    },
    Urgency {
        userid: u32,
        urgency: u8,
    },
    Alloc {
        annotations: Option<Map<String, Value>>,
        /// The scheduler does not know of the resources.
        bypass: bool,
    },
    PrologStart {
        description: String,
    },
    PrologFinish {
        description: String,
        status: i64,
    },
    EpilogStart {
        description: String,
    },
    EpilogFinish {
        description: String,
        status: i64,
    },
    Start,
    Finish {
        status: i32,
    },
    Release {
        ranks: String,
        last: bool,
    },
    Free,
    Clean,
    Exception(Exception),
    Memo {
        values: Map<String, Value>,
    },
    SetFlags {
        flags: Vec<String>,
    },
    JobspecUpdate {
        updates: Map<String, Value>,
    },
    ResourceUpdate {
        expiration: f64,
    },
    FluxRestart,
    /// In the journal only, never in the eventlog: the job's annotations changed.
    Annotations {
        annotations: Option<Map<String, Value>>,
    },
    Other {
        name: String,
        context: Option<Map<String, Value>>,
    },
}

/// An exception (RFC 21).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Exception {
    pub(super) kind: String,
    pub(super) severity: u8,
    pub(super) note: String,
    pub(super) userid: Option<u32>,
    pub(super) wait_status: Option<i64>,
    /// Reported by the execution service, which writes its keys in another order.
    pub(super) from_exec: bool,
}

#[derive(Deserialize)]
struct SubmitContext {
    userid: u32,
    urgency: u8,
    #[serde(default)]
    flags: u32,
}

#[derive(Deserialize)]
struct ExceptionContext {
    #[serde(rename = "type")]
    kind: String,
    severity: u8,
    #[serde(default)]
    note: String,
    #[serde(default)]
    userid: Option<u32>,
    #[serde(default)]
    wait_status: Option<i64>,
}

#[derive(Deserialize)]
struct UrgencyContext {
    #[serde(default)]
    userid: u32,
    urgency: u8,
}

#[derive(Deserialize)]
struct Described {
    #[serde(default)]
    description: String,
    #[serde(default)]
    status: i64,
}

#[derive(Deserialize)]
struct One<T> {
    #[serde(alias = "priority", alias = "status", alias = "flags", alias = "expiration")]
    value: T,
}

#[derive(Deserialize)]
struct ReleaseContext {
    ranks: String,
    #[serde(rename = "final")]
    last: bool,
}

#[derive(Default, Deserialize)]
struct AllocContext {
    #[serde(default)]
    annotations: Option<Map<String, Value>>,
    #[serde(default)]
    bypass: bool,
}

impl Event {
    /// Returns the name written to the log.
    pub(super) fn name(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Event::Submit { .. } => "submit",
            Event::Validate => "validate",
            Event::Invalidate => "invalidate",
            Event::DependencyAdd { .. } => "dependency-add",
            Event::DependencyRemove { .. } => "dependency-remove",
            Event::Depend => "depend",
            Event::Priority { .. } => "priority",
            Event::Urgency { .. } => "urgency",
            Event::Alloc { .. } => "alloc",
            Event::PrologStart { .. } => "prolog-start",
            Event::PrologFinish { .. } => "prolog-finish",
            Event::EpilogStart { .. } => "epilog-start",
            Event::EpilogFinish { .. } => "epilog-finish",
            Event::Start => "start",
            Event::Finish { .. } => "finish",
            Event::Release { .. } => "release",
            Event::Free => "free",
            Event::Clean => "clean",
            Event::Exception(_) => "exception",
            Event::Memo { .. } => "memo",
            Event::SetFlags { .. } => "set-flags",
            Event::JobspecUpdate { .. } => "jobspec-update",
            Event::ResourceUpdate { .. } => "resource-update",
            Event::FluxRestart => "flux-restart",
            Event::Annotations { .. } => "annotations",
            Event::Other { name, .. } => return Cow::Owned(name.clone()),
        })
    }

    /// Returns what it is for the state table.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Event::Submit { .. } => Kind::Submit,
            Event::Validate => Kind::Validate,
            Event::Invalidate => Kind::Invalidate,
            Event::Depend => Kind::Depend,
            Event::Priority { .. } => Kind::Priority,
            Event::Urgency { .. } => Kind::Urgency,
            Event::JobspecUpdate { .. } => Kind::JobspecUpdate,
            Event::FluxRestart => Kind::FluxRestart,
            Event::Alloc { .. } => Kind::Alloc,
            Event::Finish { .. } => Kind::Finish,
            Event::Free => Kind::Free,
            Event::Clean => Kind::Clean,
            Event::Exception(exception) if exception.severity == 0 => Kind::Fatal,
            _ => Kind::Other,
        }
    }

    /// Returns true when the next step must wait until the event is durable (DESIGN §6).
    ///
    /// The answer to a submission, the start of shells, the return of resources, and the answer to whoever
    /// cancelled or held a job.
    pub(super) fn is_durable(&self) -> bool {
        matches!(
            self.kind(),
            Kind::Submit | Kind::Alloc | Kind::Finish | Kind::Free | Kind::Fatal | Kind::Urgency
        )
    }

    /// Returns true when it is written to the eventlog, not to the journal only.
    pub(super) fn is_logged(&self) -> bool {
        !matches!(self, Event::Annotations { .. } | Event::Invalidate)
    }

    /// Appends the event's line.
    ///
    /// # Errors
    /// A value cannot be written as JSON (a number that is not finite).
    pub(super) fn write(&self, log: &mut String, timestamp: f64) -> Result<(), EventlogError> {
        let name = self.name();
        match self.context() {
            None => eventlog::append_bare(log, timestamp, &name),
            Some(context) => eventlog::append(log, timestamp, &name, &context)?,
        }
        Ok(())
    }

    fn context(&self) -> Option<Value> {
        Some(match self {
            Event::Submit {
                userid,
                urgency,
                flags,
            } => {
                json!({"userid": userid, "urgency": urgency, "flags": flags, "version": 1})
            }
            Event::DependencyAdd { description }
            | Event::DependencyRemove { description }
            | Event::PrologStart { description }
            | Event::EpilogStart { description } => json!({"description": description}),
            Event::PrologFinish { description, status } | Event::EpilogFinish { description, status } => {
                json!({"description": description, "status": status})
            }
            Event::Priority { priority } => json!({"priority": priority}),
            Event::Urgency { userid, urgency } => json!({"userid": userid, "urgency": urgency}),
            Event::Alloc { bypass: true, .. } => json!({"bypass": true}),
            Event::Alloc {
                annotations: Some(annotations),
                ..
            } => json!({"annotations": annotations}),
            Event::Annotations { annotations } => json!({"annotations": annotations}),
            Event::Finish { status } => json!({"status": status}),
            Event::Release { ranks, last } => json!({"ranks": ranks, "final": last}),
            Event::Exception(exception) => exception.context(),
            Event::Memo { values } => Value::Object(values.clone()),
            Event::SetFlags { flags } => json!({"flags": flags}),
            Event::JobspecUpdate { updates } => Value::Object(updates.clone()),
            Event::ResourceUpdate { expiration } => json!({"expiration": expiration}),
            Event::Other {
                context: Some(context),
                ..
            } => Value::Object(context.clone()),
            Event::Validate
            | Event::Invalidate
            | Event::Depend
            | Event::Alloc {
                annotations: None, ..
            }
            | Event::Start
            | Event::Free
            | Event::Clean
            | Event::FluxRestart
            | Event::Other { context: None, .. } => return None,
        })
    }

    /// Reads an event of an eventlog.
    ///
    /// # Errors
    /// The context lacks what RFC 21 requires.
    pub(super) fn parse(event: &EventRef<'_>) -> Result<Event, serde_json::Error> {
        let described = || event.context_as::<Described>();
        Ok(match event.name.as_ref() {
            "submit" => {
                let SubmitContext {
                    userid,
                    urgency,
                    flags,
                } = event.context_as()?;
                Event::Submit {
                    userid,
                    urgency,
                    flags,
                }
            }
            "validate" => Event::Validate,
            "invalidate" => Event::Invalidate,
            "dependency-add" => Event::DependencyAdd {
                description: described()?.description,
            },
            "dependency-remove" => Event::DependencyRemove {
                description: described()?.description,
            },
            "depend" => Event::Depend,
            "priority" => Event::Priority {
                priority: event.context_as::<One<u64>>()?.value,
            },
            "urgency" => {
                let UrgencyContext { userid, urgency } = event.context_as()?;
                Event::Urgency { userid, urgency }
            }
            "alloc" => {
                let AllocContext { annotations, bypass } = match event.context {
                    Some(_) => event.context_as()?,
                    None => AllocContext::default(),
                };
                Event::Alloc { annotations, bypass }
            }
            "prolog-start" => Event::PrologStart {
                description: described()?.description,
            },
            "epilog-start" => Event::EpilogStart {
                description: described()?.description,
            },
            "prolog-finish" => {
                let Described { description, status } = described()?;
                Event::PrologFinish { description, status }
            }
            "epilog-finish" => {
                let Described { description, status } = described()?;
                Event::EpilogFinish { description, status }
            }
            "start" => Event::Start,
            "finish" => Event::Finish {
                status: event.context_as::<One<i32>>()?.value,
            },
            "release" => {
                let ReleaseContext { ranks, last } = event.context_as()?;
                Event::Release { ranks, last }
            }
            "free" => Event::Free,
            "clean" => Event::Clean,
            "exception" => Event::Exception(event.context_as::<ExceptionContext>()?.into()),
            "memo" => Event::Memo {
                values: event.context_as()?,
            },
            "set-flags" => Event::SetFlags {
                flags: event.context_as::<One<Vec<String>>>()?.value,
            },
            "jobspec-update" => Event::JobspecUpdate {
                updates: event.context_as()?,
            },
            "resource-update" => Event::ResourceUpdate {
                expiration: event.context_as::<One<f64>>()?.value,
            },
            "flux-restart" => Event::FluxRestart,
            other => Event::Other {
                name: other.to_owned(),
                context: event.context.map(|_| event.context_as()).transpose()?,
            },
        })
    }
}

impl Exception {
    fn context(&self) -> Value {
        if self.from_exec {
            return json!({
                "type": self.kind, "severity": self.severity, "userid": self.userid.unwrap_or(0), "note": self.note,
            });
        }
        let mut context = Map::new();
        context.insert("type".into(), self.kind.as_str().into());
        context.insert("severity".into(), self.severity.into());
        context.insert("note".into(), self.note.as_str().into());
        if let Some(userid) = self.userid {
            context.insert("userid".into(), userid.into());
        }
        if let Some(status) = self.wait_status {
            context.insert("wait_status".into(), status.into());
        }
        Value::Object(context)
    }
}

impl From<ExceptionContext> for Exception {
    fn from(context: ExceptionContext) -> Self {
        let ExceptionContext {
            kind,
            severity,
            note,
            userid,
            wait_status,
        } = context;
        Exception {
            kind,
            severity,
            note,
            userid,
            wait_status,
            from_exec: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(event: &Event) -> String {
        let mut log = String::new();
        event.write(&mut log, 1.5).unwrap();
        log
    }

    #[test]
    fn lines_as_flux_core_writes_them() {
        let exception = Exception {
            kind: "cancel".into(),
            severity: 0,
            note: String::new(),
            userid: Some(0),
            wait_status: None,
            from_exec: false,
        };
        let timeout = Exception {
            kind: "timeout".into(),
            note: "resource allocation expired".into(),
            from_exec: true,
            ..exception.clone()
        };
        for (event, context) in [
            (
                Event::Submit {
                    userid: 0,
                    urgency: 16,
                    flags: 0,
                },
                r#""submit","context":{"userid":0,"urgency":16,"flags":0,"version":1}"#,
            ),
            (
                Event::Priority { priority: 16 },
                r#""priority","context":{"priority":16}"#,
            ),
            (
                Event::Finish { status: 768 },
                r#""finish","context":{"status":768}"#,
            ),
            (
                Event::Release {
                    ranks: "all".into(),
                    last: true,
                },
                r#""release","context":{"ranks":"all","final":true}"#,
            ),
            (
                Event::Exception(exception),
                r#""exception","context":{"type":"cancel","severity":0,"note":"","userid":0}"#,
            ),
            (
                Event::Exception(timeout),
                r#""exception","context":{"type":"timeout","severity":0,"userid":0,"note":"resource allocation expired"}"#,
            ),
            (Event::Free, r#""free""#),
        ] {
            assert_eq!(
                line(&event),
                format!("{{\"timestamp\":1.5,\"name\":{context}}}\n")
            );
        }
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let text = "[a-z =ƒ\"\\\\]{0,12}";
        prop_oneof![
            (any::<u32>(), 0..32u8, 0..16u32).prop_map(|(userid, urgency, flags)| Event::Submit {
                userid,
                urgency,
                flags
            }),
            Just(Event::Validate),
            text.prop_map(|description| Event::DependencyAdd { description }),
            any::<u32>().prop_map(|p| Event::Priority { priority: p.into() }),
            (any::<u32>(), 0..32u8).prop_map(|(userid, urgency)| Event::Urgency { userid, urgency }),
            (text, any::<i64>())
                .prop_map(|(description, status)| Event::PrologFinish { description, status }),
            any::<i32>().prop_map(|status| Event::Finish { status }),
            (text, any::<bool>()).prop_map(|(ranks, last)| Event::Release { ranks, last }),
            (text, 0..8u8, text, any::<Option<u32>>(), any::<Option<i64>>()).prop_map(
                |(kind, severity, note, userid, wait_status)| Event::Exception(Exception {
                    kind,
                    severity,
                    note,
                    userid,
                    wait_status,
                    from_exec: false
                })
            ),
            Just(Event::SetFlags {
                flags: vec!["debug".into()]
            }),
            (0.0..1e12f64).prop_map(|expiration| Event::ResourceUpdate { expiration }),
        ]
    }

    proptest! {
        #[test]
        fn round_trip(event in any_event()) {
            let line = line(&event);
            let parsed = Event::parse(&EventRef::decode(line.trim_end()).unwrap()).unwrap();
            prop_assert_eq!(parsed, event);
        }
    }
}

//! How does the relay write requests and read answers? Its side of [`crate::wire`].

use flux_sign::kv::{Kv, KvError, Value};

use crate::sys::process::Status;
use crate::wire::{Request, VARIABLES, one, only};

impl Request {
    /// Returns the text of a frame.
    ///
    /// # Errors
    /// [`KvError`] for texts with NUL.
    pub fn encode(&self) -> Result<Kv, KvError> {
        let mut kv = Kv::new();
        let text = |kv: &mut Kv, key: &str, value: &str| kv.put(key, Value::String(value.to_owned()));
        match self {
            Request::Exec(exec) => {
                text(&mut kv, "cmd", "exec")?;
                text(&mut kv, "J", &exec.token)?;
                text(&mut kv, "shell", &exec.shell)?;
                text(&mut kv, "jobid", &exec.jobid)?;
                kv.put("reconnect", Value::Bool(exec.reconnect))?;
                for (name, value) in VARIABLES.iter().zip(&exec.variables) {
                    if let Some(value) = value {
                        text(&mut kv, name, value)?;
                    }
                }
                kv.put("devices", Value::Bool(exec.devices.is_some()))?;
                for (at, rule) in exec.devices.iter().flatten().enumerate() {
                    text(&mut kv, &format!("device.{at}"), rule)?;
                }
            }
            Request::Run(run) => {
                text(&mut kv, "cmd", "run")?;
                text(&mut kv, "name", &run.name)?;
                for (name, value) in &run.variables {
                    text(&mut kv, &format!("env.{name}"), value)?;
                }
            }
        }
        Ok(kv)
    }
}

/// Returns the text that relays a signal.
pub fn signal(number: i32) -> Kv {
    one("signal", Value::Int(i64::from(number)))
}

/// Reads how it ended.
pub fn decode_ended(kv: &Kv) -> Option<Status> {
    let code = only(kv, "exit").and_then(|code| i32::try_from(code).ok());
    let signal = only(kv, "killed").and_then(|signal| i32::try_from(signal).ok());
    code.map(Status::Exited).or(signal.map(Status::Killed))
}

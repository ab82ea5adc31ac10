//! How does a terminal become the terminal of a job? Raw mode here, `attach`, `data` and `resize` messages there.

use std::io;

use flux_client::Message;
use nix::sys::termios::{self, SetArg, Termios};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::common::error::CmdError;

/// The local terminal while a job uses it; restored when dropped.
#[derive(Debug)]
pub(crate) struct Terminal {
    saved: Option<Termios>,
}

#[derive(Deserialize)]
struct PtyMessage {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: String,
    #[serde(default)]
    encoding: Option<String>,
}

impl Terminal {
    /// Remembers the state of standard input when that is a terminal.
    pub(crate) fn open() -> Self {
        Terminal {
            saved: termios::tcgetattr(io::stdin()).ok(),
        }
    }

    fn size() -> (u16, u16) {
        flux_process::pty::winsize(io::stdin()).map_or((24, 80), |size| (size.rows, size.cols))
    }

    /// Returns the request that attaches this terminal.
    pub(crate) fn attach_request(&self) -> Value {
        let (rows, cols) = Terminal::size();
        json!({"type": "attach", "mode": "rw", "winsize": {"rows": rows, "cols": cols}})
    }

    /// Returns the request that tells the new size, when there is a terminal.
    pub(crate) fn resize_request(&self) -> Option<Value> {
        self.saved.as_ref()?;
        let (rows, cols) = Terminal::size();
        Some(json!({"type": "resize", "winsize": {"rows": rows, "cols": cols}}))
    }

    /// Returns the request that carries what was typed.
    pub(crate) fn data_request(&self, bytes: &[u8]) -> Value {
        match std::str::from_utf8(bytes) {
            Ok(text) => json!({"type": "data", "data": text}),
            Err(_) => {
                let mut text = String::new();
                flux_sign::base64_encode(bytes, &mut text);
                json!({"type": "data", "data": text, "encoding": "base64"})
            }
        }
    }

    /// Takes a response of the attach stream; returns true when the terminal's session has ended.
    ///
    /// # Errors
    /// When the response is not what the shell's pty sends.
    pub(crate) fn on_message(&mut self, message: &Message, out: &mut Vec<u8>) -> Result<bool, CmdError> {
        let message: PtyMessage = message
            .payload_json()
            .map_err(|source| flux_client::Error::Payload {
                topic: message.topic.clone(),
                source,
            })?;
        match message.kind.as_str() {
            "attach" => self.raw(),
            "data" if message.encoding.as_deref() == Some("base64") => {
                out.extend(flux_sign::base64_decode(&message.data).unwrap_or_default());
            }
            "data" => out.extend_from_slice(message.data.as_bytes()),
            "exit" => {
                self.restore();
                return Ok(true);
            }
            _ => {}
        }
        Ok(false)
    }

    fn raw(&self) {
        if let Some(saved) = &self.saved {
            let mut raw = saved.clone();
            termios::cfmakeraw(&mut raw);
            // A terminal that refuses stays as it is; the job is usable all the same.
            let _refused = termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &raw);
        }
    }

    fn restore(&self) {
        if let Some(saved) = &self.saved {
            let _refused = termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, saved);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.restore();
    }
}

//! What does a service say about itself? Names, methods and who may call them.

use super::Cx;
use flux_formats::errno::{self, Errnum};
use flux_formats::msg::{Message, role};
use serde_json::Value;
use std::any::Any;
use std::rc::Rc;

/// Who may call a method; the instance owner may call every one (RFC 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The instance owner only.
    Owner,
    /// The owner and guests.
    User,
    /// Any role mask that is not empty.
    All,
}

impl Access {
    /// Returns the error text of the original when `rolemask` is not enough, `None` when it is.
    pub fn refusal(self, rolemask: u32) -> Option<&'static str> {
        let allowed = match self {
            Access::Owner => role::OWNER,
            Access::User => role::OWNER | role::USER,
            Access::All => role::ALL,
        };
        if rolemask & allowed != 0 {
            None
        } else if self == Access::Owner {
            Some("Request requires owner credentials")
        } else {
            Some("Request rejected due to insufficient privilege")
        }
    }
}

/// One request topic below a service name.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// The topic after the service name and its dot, e.g. `lookup`.
    pub name: &'static str,
    /// Who may call it.
    pub access: Access,
}

impl Method {
    /// Returns a method for the instance owner only.
    pub const fn owner(name: &'static str) -> Self {
        Method {
            name,
            access: Access::Owner,
        }
    }

    /// Returns a method for the owner and guests; the handler checks whose object it is.
    pub const fn user(name: &'static str) -> Self {
        Method {
            name,
            access: Access::User,
        }
    }

    /// Returns a method for any role.
    pub const fn all(name: &'static str) -> Self {
        Method {
            name,
            access: Access::All,
        }
    }
}

/// A service name and the methods behind it.
#[derive(Clone, Copy, Debug)]
pub struct Interface {
    /// First word of the topics, without a dot.
    pub service: &'static str,
    /// Methods; `ping`, `stats-get`, `stats-clear`, `rusage`, `debug` and `config-reload` are added by the hub.
    pub methods: &'static [Method],
}

/// An error that a service answers, or a failed RPC.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct RpcError {
    /// Linux error number, never 0.
    pub errnum: Errnum,
    /// What a person reads; the C library's text when the service gave none.
    pub text: String,
    /// True when the service gave a text of its own.
    pub has_text: bool,
}

impl RpcError {
    /// Returns an error with a text of its own.
    pub fn new(errnum: Errnum, text: impl Into<String>) -> Self {
        RpcError {
            errnum,
            text: text.into(),
            has_text: true,
        }
    }

    /// Returns an error with the C library's text, sent without payload.
    pub fn bare(errnum: Errnum) -> Self {
        RpcError {
            errnum,
            text: errno::strerror(errnum).to_owned(),
            has_text: false,
        }
    }

    /// Returns the error that an error response carries.
    pub fn from_response(msg: &Message) -> Self {
        match msg.payload_str() {
            Ok(text) if !text.is_empty() => RpcError::new(msg.errnum(), text),
            _ => RpcError::bare(msg.errnum()),
        }
    }
}

impl From<flux_formats::msg::PayloadError> for RpcError {
    fn from(err: flux_formats::msg::PayloadError) -> Self {
        match err {
            flux_formats::msg::PayloadError::Json(err) => RpcError::new(errno::EPROTO, err.to_string()),
            _ => RpcError::bare(errno::EPROTO),
        }
    }
}

/// A broker module or broker-internal service: an actor that owns its state.
///
/// All methods run on the broker's one thread, never re-entered; they must not block. Slow work goes to
/// [`Cx::spawn`] or a thread that answers through a [`super::Mailbox`].
pub trait Service: Any {
    /// Returns the service names and their methods; asked once when the service is loaded.
    fn interfaces(&self) -> Vec<Interface>;

    /// Starts it: subscribes, opens files, sends first RPCs.
    ///
    /// # Errors
    /// The load fails with this error and the service is dropped.
    fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError>;

    /// Handles a request whose role mask was accepted; `req.topic` is one of its methods.
    ///
    /// Every request must be answered (now or later) unless it carries NORESPONSE.
    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message);

    /// Handles an event that matches a prefix given to [`Cx::subscribe`].
    fn on_event(&mut self, cx: &mut Cx<'_>, event: &Message) {
        let _ = (cx, event);
    }

    /// Drops everything kept for the client `sender` (`msg.sender()`), without responding.
    fn on_disconnect(&mut self, cx: &mut Cx<'_>, msg: &Message) {
        let _ = (cx, msg);
    }

    /// Returns what `NAME.stats-get` answers; `None` means message counters.
    fn stats(&mut self, cx: &mut Cx<'_>) -> Option<Value> {
        let _ = cx;
        None
    }

    /// Takes over `NAME.stats-get` when figures have to be asked for elsewhere first; returns false when [`Service::stats`] has them all.
    fn stats_later(&mut self, cx: &mut Cx<'_>, req: &Message) -> bool {
        let _ = (cx, req);
        false
    }

    /// Clears counters (`NAME.stats-clear`).
    fn stats_clear(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }

    /// Checks a new configuration without taking it; [`Service::config_commit`] follows when all agree.
    ///
    /// # Errors
    /// The whole reload is refused with this text and everyone stays at the old configuration.
    fn config_prepare(&mut self, cx: &mut Cx<'_>, config: &Rc<Value>) -> Result<(), RpcError> {
        let _ = (cx, config);
        Ok(())
    }

    /// Takes the new configuration, which is already `cx.config()`.
    fn config_commit(&mut self, cx: &mut Cx<'_>) {
        let _ = cx;
    }

    /// Begins to stop. Returns true when done; else the service calls [`Cx::stopped`] later.
    fn stop(&mut self, cx: &mut Cx<'_>) -> bool {
        let _ = cx;
        true
    }
}

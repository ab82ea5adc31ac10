//! How does a request meet its response? A token with the matchtag; the caller may hold many of them.

use std::time::Instant;

use flux_formats::errno;
use flux_formats::msg::{self, Kind, Message, Topic, flags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::handle::is_last;
use crate::{Error, Handle, Incoming, RpcError};

/// An outstanding RPC of one [`Handle`]. It borrows nothing, so any number may be in flight.
///
/// Dropping it without waiting leaves its response in the handle's queue; use [`Handle::forget`] instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rpc {
    /// Matchtag of the request, unique among the handle's outstanding ones.
    pub(crate) matchtag: u32,
    /// Topic of the request.
    pub(crate) topic: Topic,
    /// Counts reconnects, so that a token from before one is recognised.
    pub(crate) generation: u32,
}

impl Rpc {
    /// Returns the request's matchtag, as cancel requests name it.
    pub fn matchtag(&self) -> u32 {
        self.matchtag
    }

    /// Returns the request's topic.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Returns true when the response answers this RPC.
    pub fn matches(&self, msg: &Message) -> bool {
        msg.kind == Kind::Response && msg.matchtag() == self.matchtag && msg.routes.is_empty()
    }
}

/// Turns a response with an error number into [`Error::Rpc`].
///
/// # Errors
/// [`Error::Rpc`] when the error number is not 0.
pub(crate) fn check(msg: Message) -> Result<Message, Error> {
    if msg.errnum() == 0 {
        return Ok(msg);
    }
    let text = msg.payload_str().ok().map(str::to_owned);
    Err(Error::Rpc(RpcError {
        topic: msg.topic.clone(),
        errnum: msg.errnum(),
        text,
    }))
}

/// Decodes a JSON payload, taking a missing one as `{}`.
pub(crate) fn decode<T: DeserializeOwned>(msg: &Message) -> Result<T, Error> {
    msg.payload_json_or_empty().map_err(|source| Error::Payload {
        topic: msg.topic.clone(),
        source,
    })
}

impl Handle {
    /// Queues a request with a JSON payload and returns the token for its response.
    ///
    /// Nothing is written before the handle is next flushed or waited on, so a row of calls leaves in one write.
    ///
    /// # Errors
    /// [`Error::Encode`]; [`Error::Io`] when the queue had to be flushed because it grew large.
    pub fn rpc<T: Serialize + ?Sized>(
        &mut self,
        topic: impl Into<Topic>,
        nodeid: u32,
        body: &T,
    ) -> Result<Rpc, Error> {
        let payload = msg::json_payload(body).map_err(Error::Encode)?;
        self.rpc_message(Message::request(topic, nodeid, Some(payload)))
    }

    /// Queues a request that may get several responses, ended by one with an error number (ENODATA: normal end).
    ///
    /// # Errors
    /// As [`Handle::rpc`].
    pub fn stream<T: Serialize + ?Sized>(
        &mut self,
        topic: impl Into<Topic>,
        nodeid: u32,
        body: &T,
    ) -> Result<Rpc, Error> {
        let payload = msg::json_payload(body).map_err(Error::Encode)?;
        let mut request = Message::request(topic, nodeid, Some(payload));
        request.flags |= flags::STREAMING;
        self.rpc_message(request)
    }

    /// Queues a request made by the caller (raw or no payload, own flags) under a fresh matchtag.
    ///
    /// # Errors
    /// As [`Handle::rpc`].
    pub fn rpc_message(&mut self, mut request: Message) -> Result<Rpc, Error> {
        let matchtag = self.tags.take();
        request.aux2 = matchtag;
        let rpc = Rpc {
            matchtag,
            topic: request.topic.clone(),
            generation: self.generation,
        };
        self.send(&request)?;
        Ok(rpc)
    }

    /// Queues a request that wants no response (flag NORESPONSE, matchtag 0).
    ///
    /// # Errors
    /// As [`Handle::rpc`].
    pub fn notify<T: Serialize + ?Sized>(
        &mut self,
        topic: impl Into<Topic>,
        nodeid: u32,
        body: &T,
    ) -> Result<(), Error> {
        let payload = msg::json_payload(body).map_err(Error::Encode)?;
        let mut request = Message::request(topic, nodeid, Some(payload));
        request.flags |= flags::NORESPONSE;
        self.send(&request)
    }

    /// Sends a request and waits for its response, decoded from JSON (a missing payload is `{}`).
    ///
    /// # Errors
    /// [`Error::Rpc`] with the service's errnum and text, [`Error::Timeout`] when the handle has a timeout, and
    /// those of the connection.
    pub fn call<T: DeserializeOwned>(
        &mut self,
        topic: impl Into<Topic>,
        nodeid: u32,
        body: &(impl Serialize + ?Sized),
    ) -> Result<T, Error> {
        let rpc = self.rpc(topic, nodeid, body)?;
        self.get(&rpc)
    }

    /// Sends a request without payload and waits for its response.
    ///
    /// # Errors
    /// As [`Handle::call`].
    pub fn call_empty<T: DeserializeOwned>(
        &mut self,
        topic: impl Into<Topic>,
        nodeid: u32,
    ) -> Result<T, Error> {
        let rpc = self.rpc_message(Message::request(topic, nodeid, None))?;
        self.get(&rpc)
    }

    /// Waits for the next response to `rpc` and decodes its JSON payload (a missing one is `{}`).
    ///
    /// # Errors
    /// As [`Handle::call`].
    pub fn get<T: DeserializeOwned>(&mut self, rpc: &Rpc) -> Result<T, Error> {
        decode(&self.wait(rpc)?)
    }

    /// Waits for the next response to `rpc` within the handle's timeout.
    ///
    /// # Errors
    /// [`Error::Rpc`] when the response carries an error number, and those of the connection.
    pub fn wait(&mut self, rpc: &Rpc) -> Result<Message, Error> {
        let deadline = self.deadline();
        self.wait_until(rpc, deadline)
    }

    /// Waits for the next response to `rpc` until `deadline` (`None`: forever).
    ///
    /// # Errors
    /// As [`Handle::wait`], and [`Error::Timeout`].
    pub fn wait_until(&mut self, rpc: &Rpc, deadline: Option<Instant>) -> Result<Message, Error> {
        if rpc.generation != self.generation {
            return Err(Error::Reconnected);
        }
        check(self.wait_for(deadline, |msg| rpc.matches(msg))?)
    }

    /// Waits for the next response of a stream; `None` is its normal end (ENODATA).
    ///
    /// # Errors
    /// As [`Handle::wait`], for any other error number.
    pub fn next(&mut self, rpc: &Rpc) -> Result<Option<Message>, Error> {
        self.next_until(rpc, None)
    }

    /// As [`Handle::next`], until `deadline`.
    ///
    /// # Errors
    /// As [`Handle::next`], and [`Error::Timeout`].
    pub fn next_until(&mut self, rpc: &Rpc, deadline: Option<Instant>) -> Result<Option<Message>, Error> {
        match self.wait_until(rpc, deadline) {
            Ok(msg) => Ok(Some(msg)),
            Err(err) if err.is_rpc(errno::ENODATA) => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Waits for the next response of a stream and decodes it; `None` is its normal end.
    ///
    /// # Errors
    /// As [`Handle::next`], and [`Error::Payload`].
    pub fn next_json<T: DeserializeOwned>(&mut self, rpc: &Rpc) -> Result<Option<T>, Error> {
        self.next(rpc)?.map(|msg| decode(&msg)).transpose()
    }

    /// Gives up an RPC: what has arrived is dropped, what arrives later is absorbed.
    pub fn forget(&mut self, rpc: Rpc) {
        if rpc.generation != self.generation || !self.tags.is_used(rpc.matchtag) {
            return;
        }
        let mut ended = false;
        self.inbox.retain(|msg| {
            let ours = rpc.matches(msg);
            ended |= ours && is_last(msg);
            !ours
        });
        if ended {
            self.tags.free(rpc.matchtag);
        } else {
            self.abandoned.insert(rpc.matchtag);
        }
    }

    /// Cancels a stream with `topic` (`{matchtag}`, NORESPONSE); its last response (ENODATA) still comes.
    ///
    /// # Errors
    /// As [`Handle::rpc`].
    pub fn cancel(&mut self, topic: impl Into<Topic>, nodeid: u32, rpc: &Rpc) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Cancel {
            matchtag: u32,
        }
        self.notify(
            topic,
            nodeid,
            &Cancel {
                matchtag: rpc.matchtag,
            },
        )
    }

    /// Sends a NORESPONSE request that is answered all the same, matched by topic (`job-exec.shell-barrier`).
    ///
    /// # Errors
    /// As [`Handle::call`].
    pub fn call_untagged(
        &mut self,
        topic: impl Into<Topic>,
        nodeid: u32,
        body: &(impl Serialize + ?Sized),
    ) -> Result<Message, Error> {
        let topic = topic.into();
        self.notify(topic.clone(), nodeid, body)?;
        let deadline = self.deadline();
        check(self.wait_for(deadline, |m| {
            m.kind == Kind::Response && m.matchtag() == 0 && m.topic == topic
        })?)
    }

    /// Answers a request that came to a service of this client; `None` sends an empty success.
    ///
    /// # Errors
    /// As [`Handle::rpc`].
    pub fn respond<T: Serialize>(&mut self, request: &Message, body: Option<&T>) -> Result<(), Error> {
        if !request.wants_response() {
            return Ok(());
        }
        let payload = body.map(msg::json_payload).transpose().map_err(Error::Encode)?;
        self.send(&request.response(payload))
    }

    /// Answers a request with an error number and text.
    ///
    /// # Errors
    /// As [`Handle::rpc`].
    pub fn respond_error(&mut self, request: &Message, errnum: u32, text: &str) -> Result<(), Error> {
        if !request.wants_response() {
            return Ok(());
        }
        self.send(&request.error_response(errnum, text))
    }

    /// Waits for the next message of any kind until `deadline`; `None` when the deadline passed.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn next_incoming(&mut self, deadline: Option<Instant>) -> Result<Option<Incoming>, Error> {
        match self.wait_for(deadline, |_| true) {
            Ok(msg) => Ok(Some(Incoming::from(msg))),
            Err(Error::Timeout) => Ok(None),
            Err(err) => Err(err),
        }
    }
}

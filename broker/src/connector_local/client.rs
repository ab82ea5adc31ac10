//! How are one client's bytes read and written? A task per connection; the hub writes first, the task the rest.

use super::ConnectorLocal;
use crate::service::{ClientId, Mailbox, Outbox};
use bytes::{Buf, Bytes, BytesMut};
use flux_formats::msg::{DecodeError, FrameDecoder, Message};
use std::cell::{Cell, RefCell};
use std::io;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};

/// Bytes asked of the kernel in one read.
const READ_SIZE: usize = 64 * 1024;
/// Unread output at which no more of a client's input is read: a client that never reads fills its own socket.
/// Large enough for everyone who sends many requests first and reads the answers afterwards.
const BACKLOG_BYTES_MAX: usize = 16 << 20;
/// Messages handed to the hub in one post.
const BATCH: usize = 64;

/// The socket of a client, shared by its task and the hub's flush.
#[derive(Debug)]
pub(super) struct ClientIo {
    stream: UnixStream,
    wants_write: Cell<bool>,
    backlog: Cell<usize>,
    broken: Cell<bool>,
    aborted: RefCell<Option<String>>,
    changed: Notify,
}

impl ClientIo {
    pub(super) fn new(stream: UnixStream) -> Self {
        ClientIo {
            stream,
            wants_write: Cell::new(false),
            backlog: Cell::new(0),
            broken: Cell::new(false),
            aborted: RefCell::new(None),
            changed: Notify::new(),
        }
    }

    /// Sends the byte that accepts (0) or refuses (an errno) the connection.
    pub(super) fn welcome(&self, byte: u8) -> io::Result<()> {
        // the socket is fresh and empty, so one byte always fits
        self.stream.try_write(&[byte]).map(drop)
    }
}

impl Outbox for ClientIo {
    fn flush(&self, buffer: &mut BytesMut) {
        self.write_some(buffer);
        self.backlog.set(buffer.len());
    }

    fn abort(&self, reason: &str) {
        *self.aborted.borrow_mut() = Some(reason.to_owned());
        self.changed.notify_one();
    }
}

impl ClientIo {
    /// Writes what the socket takes.
    fn write_some(&self, buffer: &mut BytesMut) {
        if self.broken.get() {
            buffer.clear();
            return;
        }
        while !buffer.is_empty() {
            match self.stream.try_write(buffer) {
                Ok(count) => buffer.advance(count),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    self.wants_write.set(true);
                    self.changed.notify_one();
                    return;
                }
                Err(_) => {
                    // like the original: drop the output, then wait for the end of the input
                    self.broken.set(true);
                    buffer.clear();
                }
            }
        }
        self.wants_write.set(false);
        if buffer.capacity() > READ_SIZE {
            *buffer = BytesMut::new();
        }
    }

    /// Returns what to wait for on the socket; no input while too much output is unread.
    fn interest(&self) -> Interest {
        if !self.wants_write.get() {
            Interest::READABLE
        } else if self.backlog.get() > BACKLOG_BYTES_MAX {
            Interest::WRITABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        }
    }
}

/// Why a connection ended, when there is something to say.
enum End {
    Closed,
    Aborted,
    Malformed(DecodeError),
}

/// Serves one client until it goes away.
pub(super) async fn serve(
    io: std::rc::Rc<ClientIo>,
    id: ClientId,
    frame_limit: usize,
    mailbox: Mailbox<ConnectorLocal>,
) {
    let end = read_loop(&io, &id, frame_limit, &mailbox).await;
    let reason = match end {
        End::Closed | End::Aborted => None,
        End::Malformed(err) => Some(err.to_string()),
    };
    // the hub is gone only when the broker exits, and then nobody is left to tell
    let _ = mailbox
        .post(move |connector, cx| connector.on_client_down(cx, &id, reason))
        .await;
}

async fn read_loop(
    io: &ClientIo,
    id: &ClientId,
    frame_limit: usize,
    mailbox: &Mailbox<ConnectorLocal>,
) -> End {
    let mut decoder = FrameDecoder::new(frame_limit);
    loop {
        let ready = tokio::select! {
            ready = io.stream.ready(io.interest()) => ready,
            () = io.changed.notified() => {
                if io.aborted.borrow().is_some() {
                    return End::Aborted;
                }
                continue;
            }
        };
        let Ok(ready) = ready else { return End::Closed };
        if ready.is_writable() && io.wants_write.get() {
            io.wants_write.set(false);
            let id = id.clone();
            if mailbox
                .post(move |_, cx| {
                    cx.flush_client(&id);
                })
                .await
                .is_err()
            {
                return End::Closed;
            }
        }
        if ready.is_readable() {
            match read_once(io, &mut decoder, id, mailbox).await {
                Ok(true) => {}
                Ok(false) => return End::Closed,
                Err(err) => return End::Malformed(err),
            }
        }
    }
}

/// Reads what is there and posts whole messages. Returns false at the end of the stream.
async fn read_once(
    io: &ClientIo,
    decoder: &mut FrameDecoder,
    id: &ClientId,
    mailbox: &Mailbox<ConnectorLocal>,
) -> Result<bool, DecodeError> {
    if decoder.buffer.capacity() - decoder.buffer.len() < READ_SIZE / 4 {
        decoder.buffer.reserve(READ_SIZE);
    }
    match io.stream.try_read_buf(&mut decoder.buffer) {
        Ok(0) => return Ok(false),
        Ok(_) => {}
        Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(true),
        Err(_) => return Ok(false),
    }
    loop {
        let mut batch: Vec<Message> = Vec::new();
        let mut failed = None;
        while batch.len() < BATCH {
            match decoder.next_message() {
                Ok(Some(msg)) => batch.push(msg),
                Ok(None) => break,
                Err(err) => {
                    failed = Some(err);
                    break;
                }
            }
        }
        let more = batch.len() == BATCH;
        if !batch.is_empty() {
            let id = id.clone();
            let bytes: usize = batch
                .iter()
                .filter_map(|msg| msg.payload.as_ref())
                .map(Bytes::len)
                .sum();
            let (done, answered) = oneshot::channel::<()>();
            let posted = mailbox.post(move |_, cx| {
                for msg in batch {
                    cx.client_message(&id, msg);
                }
                drop(done);
            });
            if posted.await.is_err() {
                return Ok(false);
            }
            if bytes > READ_SIZE {
                // the mailbox counts messages, not bytes; the end of the channel is the answer
                let _closed = answered.await;
            }
        }
        match failed {
            Some(err) => return Err(err),
            None if more => {}
            None => return Ok(true),
        }
    }
}

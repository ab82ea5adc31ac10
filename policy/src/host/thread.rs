//! Where do guests run, and how do batches and answers cross to them and back?

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError, TrySendError};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use crate::error::PolicyError;

use super::handle::{SendError, Wake};
use super::message::{Answer, Command, Refusal};
use super::room::{HostConfig, Room};

/// Batches that wait for the thread. Filled when plugins are slower than submissions; then senders keep their commands and the clients behind
/// them wait.
const INBOX_BATCHES_MAX: usize = 1024;

/// The thread that runs guests. It ends when the last host is dropped.
#[derive(Debug)]
pub(super) struct PolicyThread {
    inbox: SyncSender<Message>,
    next_id: Mutex<u64>,
}

enum Message {
    Attach {
        id: u64,
        config: Box<HostConfig>,
        mailbox: Arc<Mailbox>,
        wake: Wake,
    },
    Batch {
        id: u64,
        now: f64,
        commands: Vec<Command>,
    },
    Detach {
        id: u64,
    },
}

/// Answers on their way to a service.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    answers: Mutex<Vec<Answer>>,
}

impl Mailbox {
    /// Appends all answers to `out`.
    pub(super) fn take(&self, out: &mut Vec<Answer>) {
        out.append(&mut self.answers.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn put(&self, answers: &mut Vec<Answer>) {
        self.answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .append(answers);
    }
}

impl PolicyThread {
    /// Returns the thread of this process, started if there is none.
    pub(super) fn shared() -> Result<Arc<PolicyThread>, PolicyError> {
        static SHARED: Mutex<Weak<PolicyThread>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = shared.upgrade() {
            return Ok(thread);
        }
        let (inbox, messages) = mpsc::sync_channel(INBOX_BATCHES_MAX);
        let builder = thread::Builder::new().name("flux-policy".to_owned());
        // not joined: it holds nothing but guests, and ends by itself once every sender is gone
        drop(
            builder
                .spawn(move || serve(&messages))
                .map_err(PolicyError::Thread)?,
        );
        let thread = Arc::new(PolicyThread {
            inbox,
            next_id: Mutex::new(0),
        });
        *shared = Arc::downgrade(&thread);
        Ok(thread)
    }

    /// Gives the thread a host's plugins to load.
    pub(super) fn attach(&self, config: HostConfig, wake: Wake) -> Result<(u64, Arc<Mailbox>), PolicyError> {
        let mut next = self.next_id.lock().unwrap_or_else(PoisonError::into_inner);
        let id = *next;
        *next += 1;
        let mailbox = Arc::new(Mailbox::default());
        let message = Message::Attach {
            id,
            config: Box::new(config),
            mailbox: mailbox.clone(),
            wake,
        };
        // at start and rarely after: waiting for a place is right here
        self.inbox.send(message).map_err(|_| PolicyError::Gone)?;
        Ok((id, mailbox))
    }

    /// Hands over a batch without waiting.
    pub(super) fn send(&self, id: u64, now: f64, commands: Vec<Command>) -> Result<(), SendError> {
        let (message, gone) = match self.inbox.try_send(Message::Batch { id, now, commands }) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(message)) => (message, false),
            Err(TrySendError::Disconnected(message)) => (message, true),
        };
        let commands = if let Message::Batch { commands, .. } = message {
            commands
        } else {
            Vec::new()
        };
        Err(SendError { commands, gone })
    }

    /// Drops a host's plugins.
    pub(super) fn detach(&self, id: u64) {
        // waits only when the inbox is full; an error means that the thread and its plugins are gone already
        let _gone = self.inbox.send(Message::Detach { id });
    }
}

/// A host as the thread holds it.
struct Tenant {
    room: Result<Room, Arc<str>>,
    mailbox: Arc<Mailbox>,
    wake: Wake,
    /// True while its scheduler has more to do.
    busy: bool,
}

/// Runs until every sender is gone.
fn serve(messages: &Receiver<Message>) {
    let mut tenants: HashMap<u64, Tenant> = HashMap::new();
    let mut answers = Vec::new();
    loop {
        let idle = !tenants.values().any(|tenant| tenant.busy);
        let message = if idle {
            messages.recv().map_err(|_| TryRecvError::Disconnected)
        } else {
            messages.try_recv()
        };
        match message {
            Ok(message) => on_message(message, &mut tenants, &mut answers),
            Err(TryRecvError::Empty) => {
                for tenant in tenants.values_mut().filter(|tenant| tenant.busy) {
                    tenant.busy = tenant.room.as_mut().is_ok_and(|room| room.more(&mut answers));
                    tenant.deliver(&mut answers);
                }
            }
            Err(TryRecvError::Disconnected) => return,
        }
    }
}

fn on_message(message: Message, tenants: &mut HashMap<u64, Tenant>, answers: &mut Vec<Answer>) {
    match message {
        Message::Attach {
            id,
            config,
            mailbox,
            wake,
        } => {
            let room = Room::load(*config, answers).map_err(|error| {
                let text = one_line(&error);
                answers.push(Answer::Ready(Err(error)));
                Arc::from(text)
            });
            if room.is_ok() {
                answers.insert(0, Answer::Ready(Ok(())));
            }
            let tenant = Tenant {
                room,
                mailbox,
                wake,
                busy: false,
            };
            tenant.deliver(answers);
            tenants.insert(id, tenant);
        }
        Message::Batch { id, now, commands } => {
            if let Some(tenant) = tenants.get_mut(&id) {
                match &mut tenant.room {
                    Ok(room) => {
                        room.run(now, commands, answers);
                        tenant.busy = true;
                    }
                    Err(reason) => refuse_all(commands, reason, answers),
                }
                tenant.deliver(answers);
            }
        }
        Message::Detach { id } => {
            tenants.remove(&id);
        }
    }
}

impl Tenant {
    fn deliver(&self, answers: &mut Vec<Answer>) {
        if !answers.is_empty() {
            self.mailbox.put(answers);
            (self.wake)();
        }
    }
}

/// Answers for plugins that could not be loaded.
fn refuse_all(commands: Vec<Command>, reason: &Arc<str>, answers: &mut Vec<Answer>) {
    for command in commands {
        match command {
            Command::Ingest { token, .. } => {
                let refusal = Refusal {
                    plugin: Arc::from("policy"),
                    errnum: flux_formats::errno::EIO,
                    text: format!("policies are not loaded: {reason}"),
                };
                answers.push(Answer::Ingest {
                    token,
                    result: Err(refusal),
                });
            }
            Command::Configure { token, .. } => {
                answers.push(Answer::Configured {
                    token,
                    result: Err(PolicyError::NotLoaded(reason.to_string())),
                });
            }
            Command::Sched(_) | Command::Tap(_) => {}
        }
    }
}

/// Returns an error with all its sources in one line.
pub(crate) fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string().replace('\n', " "));
        source = cause.source();
    }
    text
}
